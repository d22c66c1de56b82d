"""`ark-trio install-units`: the systemd units, their user and /etc/ark, put into place or taken away again.

Units are ours: they are written whenever they differ. What is in /etc/ark is the operator's: written once, never touched
again, never removed.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from ark_trio.errors import ConfigError

SHIPPED_PROGRAM = "/opt/ark/bin/ark-trio"
"""What the units run as they stand."""
SERVICES = ("ark-proxy.service", "ark-prefiller.service", "ark-decoder.service")
UNITS = (*SERVICES, "ark-proxy.socket", "ark.target")
GPU_SERVICES = ("ark-prefiller.service", "ark-decoder.service")
GPU_DROP_IN = "50-gpu.conf"

_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 (named, not used)
_PLAIN = re.compile(r"/[A-Za-z0-9._/+@-]+")
_COMMAND_S = 60.0


class InstallError(Exception):
    """It can't be done. The text is one line for the operator."""


@frozen(kw_only=True)
class File:
    """A file to be, or not to be."""

    path: Path
    text: str
    ours: bool
    """Whether it follows the package; else it is the operator's once it is there."""


@frozen(kw_only=True)
class Installation:
    """What goes where."""

    root: Path
    program: str
    gpu: bool = False
    dry_run: bool = False

    @property
    def of_this_system(self) -> bool:
        """Whether it is the running system that is changed, and not an image's folder."""
        return self.root == Path("/")

    def install(self) -> Iterator[str]:
        """Put everything into place; yield a line for each thing done.

        Raises:
            InstallError: something can't be written, or a command failed.
        """
        _require_reachable(self.program)
        gone = set() if self.gpu else set(self._gpu_files())
        for file in self._files():
            yield self._put(file)
        for path in sorted(gone):
            yield from self._take(path)
        yield from self._commands(
            ["systemd-sysusers", "/etc/sysusers.d/ark.conf"],
            ["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/ark.conf"],
            ["systemctl", "daemon-reload"],
        )

    def uninstall(self) -> Iterator[str]:
        """Stop the services and take the units away; yield a line for each thing done."""
        if self._is_there():
            yield from self._commands(["systemctl", "disable", "--now", "ark.target", *UNITS[:-1]])
        for file in self._files():
            if file.ours:
                yield from self._take(file.path)
        for path in self._gpu_files():
            yield from self._take(path)
        yield from self._commands(["systemctl", "daemon-reload"])
        yield "kept: /etc/ark, /var/lib/ark-trio and the user ark"

    def _files(self) -> Iterator[File]:
        shipped = shipped_folder()
        system = self.root / "etc/systemd/system"
        for name in UNITS:
            text = (shipped / name).read_text(encoding="utf-8")
            yield File(
                path=system / name, text=text.replace(SHIPPED_PROGRAM, self.program), ours=True
            )
        if self.gpu:
            text = (shipped / "gpu" / "gpu.conf").read_text(encoding="utf-8")
            yield from (File(path=path, text=text, ours=True) for path in self._gpu_files())
        for folder in ("sysusers.d", "tmpfiles.d"):
            text = (shipped / folder / "ark.conf").read_text(encoding="utf-8")
            yield File(path=self.root / "etc" / folder / "ark.conf", text=text, ours=True)
        for config in sorted((shipped / "etc").iterdir()):
            text = config.read_text(encoding="utf-8")
            yield File(path=self.root / "etc/ark" / config.name, text=text, ours=False)

    def _gpu_files(self) -> tuple[Path, ...]:
        system = self.root / "etc/systemd/system"
        return tuple(system / f"{name}.d" / GPU_DROP_IN for name in GPU_SERVICES)

    def _is_there(self) -> bool:
        return (self.root / "etc/systemd/system" / UNITS[0]).exists()

    def _put(self, file: File) -> str:
        there = file.path.is_file()
        if there and not file.ours:
            return f"kept: {file.path} is yours"
        try:
            if there and file.path.read_text(encoding="utf-8") == file.text:
                return f"unchanged: {file.path}"
            if not self.dry_run:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                new = file.path.with_name(f".{file.path.name}.new")
                new.write_text(file.text, encoding="utf-8")
                new.chmod(0o644)
                new.replace(file.path)
        except OSError as error:
            raise InstallError(f"{file.path} can't be written: {error.strerror}") from error
        return f"written: {file.path}"

    def _take(self, path: Path) -> Iterator[str]:
        if not path.exists():
            return
        try:
            if not self.dry_run:
                path.unlink()
                if path.parent.name.endswith(".d") and path.name == GPU_DROP_IN:
                    _remove_if_empty(path.parent)
        except OSError as error:
            raise InstallError(f"{path} can't be removed: {error.strerror}") from error
        yield f"removed: {path}"

    def _commands(self, *commands: list[str]) -> Iterator[str]:
        """Run them on the running system; elsewhere there is nobody to tell."""
        if not self.of_this_system:
            return
        running = Path("/run/systemd/system").is_dir()
        for command in commands:
            line = " ".join(command)
            if command[0] == "systemctl" and not running:
                yield f"not run, systemd is not: {line}"
                continue
            if not self.dry_run:
                _run(command)
            yield f"run: {line}"


def own_program() -> str:
    """The `ark-trio` that belongs to this interpreter."""
    return str(Path(sys.executable).parent / "ark-trio")


def shipped_folder() -> Path:
    """Where the units are: in the wheel beside the code, in a checkout at its top."""
    here = Path(__file__).parent
    inside = here / "share" / "systemd"
    return inside if inside.is_dir() else here.parent / "systemd"


def _require_reachable(program: str) -> None:
    """Refuse a program that the services could not see or that a unit file could not spell."""
    if not _PLAIN.fullmatch(program):
        raise ConfigError(f"{program!r}: a unit needs an absolute path of plain characters")
    where = {Path(program)}
    if program == own_program():
        where |= {Path(program).resolve(), Path(sys.executable).resolve(), Path(sys.prefix)}
    for path in sorted(where):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            raise ConfigError(
                f"{path} is hidden from the services (ProtectHome=, PrivateTmp=);"
                f" install into /opt/ark, or name another program by --exec"
            )


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (our own, from above)
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise InstallError(f"{' '.join(command)} failed: {words[:300]}")
