"""What `up` shows: a progress line, few plain ones, and everything else in a log file."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from attrs import define, field

from ark_trio.config import Bind

_LOG_LIMIT_BYTES = 16 * 2**20


@define(kw_only=True)
class Screen:
    """The terminal, or whatever stands in its place. A terminal that has gone away is no reason to fail."""

    out: TextIO
    _shown: str = field(default="", init=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a line can be written over."""
        return self.out.isatty()

    def say(self, text: str) -> None:
        """Print a line; a progress line gives way to it."""
        self._write(f"{self._erased()}{text}\n")
        self._shown = ""

    def progress(self, text: str) -> None:
        """Show the progress line, in place on a terminal; elsewhere, a line at each change."""
        if not self.is_terminal:
            if text != self._shown:
                self._write(f"{text}\n")
        else:
            self._write(self._erased() + text)
        self._shown = text

    def _erased(self) -> str:
        return "\r\x1b[K" if self.is_terminal and self._shown else ""

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self.out.write(text)
            self.out.flush()


@define(kw_only=True)
class ServiceLog:
    """The services' output in one file, each line with its service's name. At most two files of 16 MiB."""

    path: Path
    echo: Screen | None
    """Where lines go as well."""
    _file: TextIO | None = field(default=None, init=False)
    _left: int = field(default=0, init=False)

    def write(self, service: str, line: str) -> None:
        """Add a line. Files on disk don't block for long enough to matter here."""
        text = f"{service:9} | {line}"
        if self.echo is not None:
            self.echo.say(text)
        with suppress(OSError):  # a full disk must not stop what serves
            self._to_file(text + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _to_file(self, text: str) -> None:
        if self._left <= 0:
            self.close()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._file is not None:
                self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("w", encoding="utf-8", errors="replace", buffering=1)
            self._left = _LOG_LIMIT_BYTES
        if self._file is not None:
            self._left -= self._file.write(text)


def log_path(gateway: Bind, environ: Mapping[str, str]) -> Path:
    """Where the services' log goes: the user's state folder, a file for each address of a gateway."""
    state_home = environ.get("XDG_STATE_HOME", "")
    base = Path(state_home) if state_home.startswith("/") else Path.home() / ".local" / "state"
    return base / "ark-trio" / f"up-{gateway.path.stem if gateway.path else gateway.port}.log"
