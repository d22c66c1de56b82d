"""A real systemd as PID 1 of namespaces of its own, on an overlay of this machine's root: boots in half a second.

It sees this machine's files, but what it writes is in memory and vanishes with it; so do its processes, mounts and cgroups.
Root is needed, and Debian's systemd, dbus, util-linux and iproute2. Make it in the main thread: the kernel kills it when the
thread dies that started it, so nothing outlives a killed test run.
"""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from attrs import define, field

from tests.support.netns import connect, own_name, sweep

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "devices")
"""Of cgroup v1: those that systemd 252 can use."""
BOOT_S = 30.0
WORK = Path("/var/tmp")  # noqa: S108 (under names of our own)
PREFIX = "ark-host-"

_PR_SET_PDEATHSIG = 1
_POWER_OFF = signal.SIGRTMIN + 4
_TARGET = """\
[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
AllowIsolate=yes
"""
_ENTER = ("-m", "-u", "-i", "-p", "-n", "-C")

_INNER = r"""
set -e
work=$1 root=$1/root
mkdir -p $root $work/overlay
mount --make-rprivate /
mount -t tmpfs -o mode=755 ark $work/overlay
mkdir $work/overlay/upper $work/overlay/work
mount -t overlay ark -o lowerdir=/,upperdir=$work/overlay/upper,workdir=$work/overlay/work $root
mount -t proc -o nosuid,nodev,noexec proc $root/proc
mount --bind $root/proc/sys $root/proc/sys
mount -o remount,bind,ro $root/proc/sys  # or systemd-sysctl would set this machine's
mount -t sysfs -o ro sysfs $root/sys
@CGROUPS@
mount -t tmpfs -o mode=755 tmpfs $root/run
mkdir -p $root/run/host
mount -t tmpfs -o mode=1777 tmpfs $root/tmp
mount -t tmpfs -o mode=755 tmpfs $root/etc/systemd/system  # without this machine's own units
mount -t tmpfs -o mode=755 tmpfs $root/dev
mkdir $root/dev/pts $root/dev/shm $root/dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $root/dev/pts
mount -t tmpfs -o mode=1777 tmpfs $root/dev/shm
for device in null zero full random urandom tty; do
  touch $root/dev/$device
  mount --bind /dev/$device $root/dev/$device
done
ln -s pts/ptmx $root/dev/ptmx
ln -s /proc/self/fd $root/dev/fd
ln -s /proc/self/fd/0 $root/dev/stdin
ln -s /proc/self/fd/1 $root/dev/stdout
ln -s /proc/self/fd/2 $root/dev/stderr
touch $root/dev/console
mount --bind $work/console.log $root/dev/console
tr -d - < /proc/sys/kernel/random/uuid > $root/etc/machine-id  # "uninitialized" would enable every unit
cp -a $work/stage/. $root/
@BINDS@
ip link set lo up
mkdir -p $root/.old
cd $root
pivot_root . .old
umount -l /.old
rmdir /.old
mount --make-rshared /  # LoadCredential= needs it
hostname ark-test
exec env -i container=ark PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=ark-test.target --log-level=info --show-status=0
"""


def missing_features() -> list[str]:
    """What this machine lacks for it, by name."""
    filesystems = Path("/proc/filesystems").read_text().split()
    found = {
        "root": os.geteuid() == 0,
        "systemd (Debian: systemd)": Path("/lib/systemd/systemd").exists(),
        "dbus-daemon (Debian: dbus)": shutil.which("dbus-daemon") is not None,
        "unshare, nsenter (Debian: util-linux)": shutil.which("nsenter") is not None,
        "ip (Debian: iproute2)": shutil.which("ip") is not None,
        "kernel: overlayfs (CONFIG_OVERLAY_FS)": "overlay" in filesystems,
        "kernel: cgroup memory controller (CONFIG_MEMCG)": _has_memory_controller(),
        **{
            f"kernel: {kind} namespaces": Path(f"/proc/self/ns/{kind}").exists()
            for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup", "user")
        },
    }
    return [name for name, there in found.items() if not there]


def _has_memory_controller() -> bool:
    unified = CGROUPS / "cgroup.controllers"
    if unified.exists():
        return "memory" in unified.read_text().split()
    return (CGROUPS / "memory").is_dir()


@define(kw_only=True, eq=False)
class Host:
    """A booted systemd. Made by `booted`."""

    work: Path
    process: "subprocess.Popen[bytes]"
    cgroups: list[Path]
    pid: int = 0
    """Its PID 1, as this machine counts."""
    boot_s: float = 0.0
    _began: float = field(factory=time.monotonic)

    @property
    def network(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    def run(self, *command: str, check: bool = True, within_s: float = 60) -> str:
        """Run a command there; what it prints, both outputs."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), *_ENTER, "--", *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": "", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
        if check and done.returncode:
            raise CommandFailed(
                f"{' '.join(command)}: {done.returncode}\n{done.stdout}{self.tail()}"
            )
        return done.stdout

    def ctl(self, *words: str, check: bool = True, within_s: float = 60) -> str:
        return self.run("systemctl", "--no-pager", *words, check=check, within_s=within_s)

    def show(self, unit: str, name: str) -> str:
        """A unit's property."""
        return self.ctl("show", unit, "-p", name, "--value").strip()

    def journal(self, *words: str) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", *words, check=False)

    def tail(self) -> str:
        return "\n--- journal\n" + "\n".join(self.journal("-n", "60").splitlines())

    def path(self, inside: str) -> Path:
        """A file of its, as this machine sees it."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def drop_in(self, unit: str, text: str, name: str = "test.conf") -> None:
        """Add to a unit's [Service]."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}", f"[Service]\n{text}\n")
        self.ctl("daemon-reload")

    def main_pid(self, unit: str) -> int:
        """A unit's main process, as this machine counts."""
        inside = self.show(unit, "MainPID")
        group = self.show(unit, "ControlGroup").lstrip("/")
        for processes in self.cgroups[-1].joinpath(group).rglob("cgroup.procs"):
            for pid in processes.read_text().split():
                with suppress(OSError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    if status.partition("NSpid:")[2].split("\n")[0].split()[-1] == inside:
                        return int(pid)
        raise CommandFailed(f"{unit} has no main process{self.tail()}")

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """A socket of its network, connected."""
        return connect(self.network, host, port)


class CommandFailed(Exception):
    """A command in the host failed; the text holds its output and the journal's end."""


@contextmanager
def booted(
    *, binds: Mapping[str, Path] | None = None, network: str | None = None
) -> Iterator[Host]:
    """Boot, and be gone without a trace when the block ends.

    Args:
        binds: folders of this machine, by where they appear there, read-only.
        network: name of the network namespace to be in; without it, a fresh one with loopback only.
    """
    _sweep()
    work = Path(tempfile.mkdtemp(prefix=own_name(PREFIX) + "-", dir=WORK))
    cgroups = _make_cgroups(work.name)
    try:
        with (work / "boot.log").open("wb") as log:
            host = Host(
                work=work, process=_start(work, cgroups, binds or {}, network, log), cgroups=cgroups
            )
            try:
                _await_boot(host)
                yield host
            finally:
                _power_off(host)
    finally:
        for folder in cgroups:
            _remove_cgroup(folder)
        shutil.rmtree(work, ignore_errors=True)


def _start(
    work: Path, cgroups: list[Path], binds: Mapping[str, Path], network: str | None, log: IO[bytes]
) -> "subprocess.Popen[bytes]":
    (work / "console.log").touch()
    target = work / "stage/etc/systemd/system/ark-test.target"
    target.parent.mkdir(parents=True)
    target.write_text(_TARGET)
    script = work / "inner.sh"
    script.write_text(
        _INNER.replace("@CGROUPS@", _cgroup_mounts()).replace("@BINDS@", _bind_mounts(binds))
    )

    def prepare() -> None:
        for folder in cgroups:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    own_network = [] if network else ["--net"]
    enter = ["nsenter", f"--net=/run/netns/{network}"] if network else []
    namespaces = ["--pid", "--mount", "--uts", "--ipc", "--cgroup", *own_network]
    options = ["--fork", "--kill-child=KILL", "--propagation", "private"]
    return subprocess.Popen(
        [*enter, "unshare", *namespaces, *options, "bash", str(script), str(work)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=prepare,  # noqa: PLW1509 (no thread of ours forks)
        start_new_session=True,
    )


def _bind_mounts(binds: Mapping[str, Path]) -> str:
    lines = []
    for inside, here in binds.items():
        target = f"$root{shlex.quote(inside)}"
        lines += [f"mkdir -p {target}", f"mount --bind {shlex.quote(str(here))} {target}"]
        lines += [f"mount -o remount,bind,ro {target}"]
    return "\n".join(lines)


def _is_hybrid() -> bool:
    return not (CGROUPS / "cgroup.controllers").exists()


def _make_cgroups(name: str) -> list[Path]:
    """A cgroup in each hierarchy that systemd will see as its root; the last is the one it keeps processes in."""
    if not _is_hybrid():
        with suppress(OSError):
            (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    folders = [parent / name for parent in _parents()]
    for folder in folders:
        folder.mkdir()
    return folders


def _parents() -> list[Path]:
    """Where such a cgroup is made: below our own."""
    if not _is_hybrid():
        return [CGROUPS]
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    current = {kind.removeprefix("name="): path.lstrip("/") for _, kind, path in lines}
    return [
        CGROUPS / kind / current.get("" if kind == "unified" else kind, "")
        for kind in (*CONTROLLERS, "systemd", "unified")
        if (CGROUPS / kind).is_dir()
    ]


def _cgroup_mounts() -> str:
    base = "$root/sys/fs/cgroup"
    if not _is_hybrid():
        return f"mount -t cgroup2 cgroup2 {base}"
    # PID 1 mounts every v1 controller that it sees, and would take some out of this machine's v2 tree.
    shown = "|".join(CONTROLLERS)
    lines = [
        f"mount -t tmpfs -o mode=755 tmpfs {base}",
        f"grep -E '^(#|{shown})\\b' /proc/cgroups > $work/cgroups",
        "mount --bind $work/cgroups $root/proc/cgroups",
    ]
    for kind in (*CONTROLLERS, "systemd", "unified"):
        if (CGROUPS / kind).is_dir():
            options = "none,name=systemd" if kind == "systemd" else kind
            what = "cgroup2" if kind == "unified" else f"cgroup -o {options}"
            lines.append(f"mkdir {base}/{kind}; mount -t {what} cgroup {base}/{kind}")
    return "\n".join(lines)


def _await_boot(host: Host) -> None:
    end = time.monotonic() + BOOT_S
    while not _has_booted(host):
        if host.process.poll() is not None or time.monotonic() > end:
            logs = [
                (host.work / name).read_text(errors="replace")
                for name in ("boot.log", "console.log")
            ]
            raise CommandFailed("systemd did not boot:\n" + "".join(logs))
        time.sleep(0.02)
    host.boot_s = time.monotonic() - host._began


def _has_booted(host: Host) -> bool:
    if not host.pid:
        unshare = host.process.pid
        with suppress(OSError):
            children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
            host.pid = int(children[0]) if children else 0
        return False
    with suppress(OSError):
        if Path(f"/proc/{host.pid}/exe").readlink().name == "systemd":
            return host.ctl("is-system-running", check=False).strip() in ("running", "degraded")
    return False


def _power_off(host: Host) -> None:
    if host.process.poll() is None and host.pid:
        with suppress(ProcessLookupError):
            os.kill(host.pid, _POWER_OFF)
        with suppress(subprocess.TimeoutExpired):
            host.process.wait(10)
    if host.process.poll() is None:
        host.process.kill()
    host.process.wait()


def _remove_cgroup(folder: Path) -> None:
    """Remove it and all below; the last processes may take a moment to leave."""
    end = time.monotonic() + 3
    while folder.exists() and time.monotonic() < end:
        inner = sorted(folder.rglob("*/"), key=lambda path: -len(path.parts))
        for path in [*inner, folder]:
            with suppress(OSError):
                path.rmdir()
        time.sleep(0.02)


def _sweep() -> None:
    """Remove what killed test runs left."""
    for folder in sweep(WORK, PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    for parent in _parents():
        for folder in sweep(parent, PREFIX):
            _remove_cgroup(folder)
