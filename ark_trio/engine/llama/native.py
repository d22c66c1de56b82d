"""llama.cpp's own server, running inside this process on a loopback port that only this process knows the key to."""

import atexit
import hashlib
import math
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import trio
from attrs import frozen

from ark_trio.config import EngineSettings
from ark_trio.errors import ConfigError

_UNLOAD_S = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM)
_SILENT, _ERRORS = 0, 1
"""llama.cpp's verbosity. What it has to say of a request it answers too; its lines have no place among ours."""
_MAX_HEARD = 64 << 10
_STANDARD_ERROR = 2
_COMPLAINT = re.compile(r"[\d.]+ E [^:]*: *(.+)")
_MORE_HTTP_THREADS = 8
"""HTTP threads beyond one a slot, for what is asked while all slots stream."""


@frozen(kw_only=True)
class Native:
    """The server, loaded."""

    url: str
    key: str
    model_sha256: str
    build: str
    """The library's exact version: KV states move only between equals."""
    kv_type: str


@asynccontextmanager
async def open_native(
    settings: EngineSettings, model: Path, state_dir: Path, limiter: trio.CapacityLimiter
) -> AsyncIterator[Native]:
    """Load the model and serve it while the block runs.

    Raises:
        ConfigError: llama.cpp can't load it, or is not installed.
    """
    in_thread = partial(trio.to_thread.run_sync, limiter=limiter, abandon_on_cancel=True)
    key = secrets.token_urlsafe(24)
    digest = await in_thread(_sha256, model)
    with _signals_end_at_once():
        loaded: list[Any] = [await in_thread(_load, settings, model, state_dir, key)]
    try:
        yield Native(
            url=loaded[0].listening_address,
            key=key,
            model_sha256=digest,
            build=_build(),
            kv_type=_kv_type(),
        )
    finally:
        if trio.current_effective_deadline() == -math.inf:
            # Cancelled: dropping the last reference waits for the batch that runs, and keeps all of Python waiting.
            atexit.register(loaded.clear)
        else:
            with trio.move_on_after(_UNLOAD_S, shield=True):
                await in_thread(loaded.clear)


def _load(settings: EngineSettings, model: Path, state_dir: Path, key: str) -> Any:
    # Read when the library loads: idle OpenMP threads that spin take decoding from 97 to 4 tokens/s on a busy core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp
    except ImportError as error:
        text = f"engine.driver: llama is not installed ({error}); install ark-trio[engine]"
        raise ConfigError(text) from error
    params = _params(xllamacpp, settings, model, state_dir, key)
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        params.verbosity = _ERRORS
        reason = first_error(lambda: xllamacpp.Server(params)) or str(error)
        raise ConfigError(f"engine.model: {model} can't be loaded: {reason}") from error


@contextmanager
def _signals_end_at_once() -> Iterator[None]:
    """Have SIGINT and SIGTERM end the process as if it had never heard of them.

    While llama.cpp loads no Python runs, so nobody could obey; there is nothing yet that would need an orderly end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def first_error(load: Callable[[], object]) -> str | None:
    """Return what llama.cpp complains of while it fails to load again: it tells nobody but the standard error."""
    with TemporaryFile() as heard, _standard_error_to(heard.fileno()):
        # It has failed before, so it fails; if it does not, it is dropped.
        with suppress(RuntimeError, ValueError):
            load()
        heard.seek(0)
        lines = heard.read(_MAX_HEARD).decode(errors="replace").splitlines()
    reasons = [match[1].strip() for line in lines if (match := _COMPLAINT.match(line))]
    return reasons[0] if reasons else None


@contextmanager
def _standard_error_to(file: int) -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(_STANDARD_ERROR)
    try:
        os.dup2(file, _STANDARD_ERROR)
        yield
    finally:
        os.dup2(saved, _STANDARD_ERROR)
        os.close(saved)


def _params(library: Any, settings: EngineSettings, model: Path, state_dir: Path, key: str) -> Any:
    params = library.CommonParams()
    params.model.path = str(model)
    if settings.chat_template is not None:
        params.chat_template = _template(settings.chat_template)
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_tokens
    # One batch is what runs on after a cancel, so a batch is one piece of prefill.
    params.n_batch = params.n_ubatch = settings.ubatch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads(settings)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_threads_http = settings.slots + _MORE_HTTP_THREADS
    params.slot_save_path = f"{state_dir}/"
    params.endpoint_slots = True
    params.cache_ram_mib = 0
    # Models with sliding windows (Gemma 3): the decoder evaluates the last prompt token, so it needs the window before it.
    # Otherwise states carry snapshots of the window, 13 times the bytes, and five tokens are evaluated.
    params.swa_full = True
    params.prefill_assistant = (
        False  # a last assistant turn is continued only when that is asked for
    )
    params.ui = False
    params.verbosity = _SILENT
    return params


def _template(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"engine.chat_template: {path} can't be read: {error}") from error


def _threads(settings: EngineSettings) -> int:
    return settings.threads or max(1, len(os.sched_getaffinity(0)) // 2)


def _build() -> str:
    import xllamacpp

    return f"xllamacpp {xllamacpp.__version__}"


def _kv_type() -> str:
    import xllamacpp

    params = xllamacpp.CommonParams()
    return f"{params.cache_type_k}/{params.cache_type_v}/{params.flash_attn_type}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
