"""llama.cpp's own server, running inside this process on a loopback port that only this process knows the key to."""

import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from ark_trio.config import EngineSettings
from ark_trio.errors import ConfigError

_UNLOAD_S = 1.0
_ERRORS_ONLY = 1
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
        # Dropping the last reference stops it, after the batch that runs. Stopping must not take longer than we have.
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
    try:
        return xllamacpp.Server(_params(xllamacpp, settings, model, state_dir, key))
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"engine.model: {model} can't be loaded: {error}") from error


def _params(library: Any, settings: EngineSettings, model: Path, state_dir: Path, key: str) -> Any:
    params = library.CommonParams()
    params.model.path = str(model)
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
    params.prefill_assistant = (
        False  # a last assistant turn is continued only when that is asked for
    )
    params.ui = False
    params.verbosity = _ERRORS_ONLY
    return params


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
