"""Changes the file of keys while gateways run: whole or not at all, one change at a time, other lines untouched."""

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from ark_trio.access.key import Key
from ark_trio.access.key_file import is_key_line, key_line, parse_key, parse_keys, read_text
from ark_trio.errors import ConfigError

_PRIVATE: Final = 0o600
_LOCK_S: Final = 10.0
_LOCK_PAUSE_S: Final = 0.02


def add_key(path: Path, key: Key) -> None:
    """Append a key; the file is made if there is none.

    Raises:
        ConfigError: the name is taken, or the file is bad or can't be written.
    """

    def append(text: str) -> str:
        if any(known.name == key.name for known in parse_keys(text, path)):
            raise ConfigError(f"keys_file: {path}: there is a key called {key.name} already")
        return text + ("\n" if text and not text.endswith("\n") else "") + key_line(key) + "\n"

    _change(path, append)


def revoke_key(path: Path, name: str) -> None:
    """Remove a key.

    Raises:
        ConfigError: there is none of that name, or the file is bad or can't be written.
    """

    def remove(text: str) -> str:
        parse_keys(text, path)
        lines = text.split("\n")
        kept = [line for line in lines if not is_key_line(line) or parse_key(line).name != name]
        if len(kept) == len(lines):
            raise ConfigError(f"keys_file: {path}: there is no key called {name}")
        return "\n".join(kept)

    _change(path, remove)


def _change(path: Path, change: Callable[[str], str]) -> None:
    # Through a link: else the link would be replaced, and its target go on being what others read.
    target = Path(os.path.realpath(path))
    try:
        with _locked(target.parent):
            text = read_text(target) if target.exists() else ""
            _replace(target, change(text).encode())
    except OSError as error:
        raise ConfigError(f"keys_file: {path}: can't be changed: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: the file itself is another one after each change."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_S
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise ConfigError(f"keys_file: {folder}: another change has not ended")
            time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _replace(target: Path, data: bytes) -> None:
    """Put `data` in the place of a file, keeping its owner and mode; after a power cut it is the old or the new one."""
    handle, name = mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            _take_after(target, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)  # noqa: PTH105 (by name, as mkstemp gave it)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_after(target: Path, handle: int) -> None:
    try:
        known = target.stat()
    except FileNotFoundError:
        os.fchmod(handle, _PRIVATE)
        return
    if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, known.st_uid, known.st_gid)
    os.fchmod(handle, stat.S_IMODE(known.st_mode))
