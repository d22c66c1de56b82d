"""A private folder in memory for KV states on the move; nothing of it outlives the process that made it."""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from ark_trio.errors import ConfigError

_PREFIX = "ark-kv-"
_LOCK = "lock"


@frozen
class RunDir:
    """The folder, while it is ours."""

    path: Path

    @contextmanager
    def state_file(self) -> Iterator[Path]:
        """Name a file for one state; whatever stands under that name when the block ends is removed."""
        path = self.path / f"{uuid.uuid4().hex}.kv"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def open_run_dir(parent: Path) -> Iterator[RunDir]:
    """Make the folder in `parent`, readable by this user only, and remove it at the end.

    Folders that killed processes left behind are removed first: nobody holds their lock any more.

    Raises:
        ConfigError: it can't be made there.
    """
    _sweep(parent)
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise ConfigError(f"engine.run_dir: {parent} can't be used: {error.strerror}") from error
    try:
        with (path / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield RunDir(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep(parent: Path) -> None:
    with suppress(OSError):
        for path in parent.glob(_PREFIX + "*"):
            if path.stat().st_uid == os.getuid():
                _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    """Remove `path` unless a process holds its lock. Without a lock file it is being made, or is not ours to judge."""
    with suppress(OSError), (path / _LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
