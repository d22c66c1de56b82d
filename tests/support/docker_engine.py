"""A real Docker engine in namespaces of its own: its networks, mounts and processes vanish with it.

Images are built by an engine on this machine's network, since Debian's packages are installed in them; containers run on one
whose network is its own, so that nothing they do is seen outside and no port is taken here.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define

from tests.support.installed import ROOT, run
from tests.support.netns import own_name, sweep

BASE_IMAGE = "python:3.11-slim-bookworm"
PREFIX = "ark-docker-"
WORK = Path("/var/tmp")  # noqa: S108 (under names of our own)
CGROUPS = Path("/sys/fs/cgroup")
START_S = 20.0

_PR_SET_PDEATHSIG = 1
_ENGINE = """\
set -e
work=$1
ip link set lo up
exec dockerd --data-root=$work/data --exec-root=$work/exec --pidfile=$work/dockerd.pid -H unix://$work/docker.sock \
  --cgroup-parent=/$(basename $work) --iptables=false --ip6tables=false --bridge=none
"""


def missing_features() -> list[str]:
    """What this machine lacks for it, by name."""
    filesystems = Path("/proc/filesystems").read_text().split()
    found = {
        "root": os.geteuid() == 0,
        "kernel: overlayfs (CONFIG_OVERLAY_FS)": "overlay" in filesystems,
        "kernel: bridges (CONFIG_BRIDGE)": _can_make("bridge"),
        "kernel: veth pairs (CONFIG_VETH)": _can_make("veth"),
    }
    return [name for name, there in found.items() if not there]


def _can_make(kind: str) -> bool:
    """Whether the kernel makes such a network device; tried in a network namespace that is gone at once."""
    command = ["unshare", "--net", "ip", "link", "add", "arktest0", "type", kind]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@define(kw_only=True, eq=False)
class Engine:
    """A running engine. Made by `docker_engine`."""

    work: Path
    tools: Path
    process: "subprocess.Popen[bytes]"

    @property
    def network(self) -> Path:
        """Its network namespace: published ports are on loopback there."""
        unshare = self.process.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        return Path(f"/proc/{children[0]}/ns/net")

    def run_beside(self, *command: str) -> str:
        """Run a command where dockerd runs: it sees the processes of all containers."""
        unshare = self.process.pid
        inner = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0]
        return run("nsenter", "-t", inner, "--pid", "--mount", "--", *command)

    def docker(self, *words: object, check: bool = True, within_s: float = 120, **env: str) -> str:
        """Run `docker …`; what it prints, both outputs."""
        done = subprocess.run(
            ["docker", *map(str, words)],
            cwd=ROOT,
            env={
                **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
                "DOCKER_HOST": f"unix://{self.work}/docker.sock",
                "DOCKER_CONFIG": str(self.tools / "config"),
                "BUILDKIT_PROGRESS": "plain",
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"docker {words}: {done.returncode}\n{done.stdout[-6000:]}")
        return done.stdout

    def compose(self, *words: object, check: bool = True, within_s: float = 180) -> str:
        """Run `docker compose …` from the project's root."""
        return self.docker("compose", *words, check=check, within_s=within_s)


def install_tools() -> Path:
    """Have everything that an engine needs; where it is."""
    run(ROOT / ".ci/docker-tools", within_s=600)
    return Path(os.environ.get("ARK_DOCKER_TOOLS", WORK / "ark-docker-tools"))


@contextmanager
def docker_home() -> Iterator[Path]:
    """A folder for an engine's images and containers, empty at first, gone at the end."""
    for folder in sweep(WORK, PREFIX):
        _remove(folder)
    folder = Path(tempfile.mkdtemp(prefix=own_name(PREFIX) + "-", dir=WORK))
    try:
        yield folder
    finally:
        _remove(folder)


@contextmanager
def docker_engine(work: Path, tools: Path, *, own_network: bool) -> Iterator[Engine]:
    """Run an engine on the folder `work` while the block lasts; its processes are gone at the end, whatever they are."""
    network = ["--net"] if own_network else []
    namespaces = ["--mount", "--pid", *network, "--fork", "--kill-child=KILL", "--mount-proc"]
    with (work / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(
            [
                "unshare",
                *namespaces,
                "--propagation",
                "private",
                "bash",
                "-c",
                _ENGINE,
                "engine",
                work,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 (no thread of ours forks)
            start_new_session=True,
        )
    engine = Engine(work=work, tools=tools, process=process)
    try:
        _await_start(engine)
        yield engine
    finally:
        _stop(engine)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _await_start(engine: Engine) -> None:
    end = time.monotonic() + START_S
    while "Server Version" not in engine.docker("info", check=False):
        if engine.process.poll() is not None or time.monotonic() > end:
            log = (engine.work / "dockerd.log").read_text(errors="replace")
            raise AssertionError(f"dockerd did not start:\n{log[-4000:]}")
        time.sleep(0.1)


def _stop(engine: Engine) -> None:
    """SIGTERM to dockerd, which stops its containers; then whatever is left goes with the process namespace."""
    unshare = engine.process.pid
    with suppress(OSError, IndexError, subprocess.TimeoutExpired):
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        engine.process.wait(30)
    if engine.process.poll() is None:
        engine.process.kill()
    engine.process.wait()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for kind in CGROUPS.iterdir() if CGROUPS.is_dir() else ():
        group = kind / folder.name
        for path in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)):
            with suppress(OSError):
                path.rmdir()
        with suppress(OSError):
            group.rmdir()
    with suppress(OSError):
        (CGROUPS / folder.name).rmdir()


def load_base_image(engine: Engine) -> None:
    """Import the stand-in under the name that the Dockerfile asks for."""
    path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    engine.docker(
        "import",
        "--change",
        path,
        "--change",
        'CMD ["python3"]',
        engine.tools / "base.tar",
        BASE_IMAGE,
    )


def megabytes(engine: Engine, image: str) -> float:
    """An image's size."""
    text = engine.docker("image", "inspect", "--format", "{{.Size}}", image)
    found = re.search(r"\d+", text)
    assert found, text
    return int(found[0]) / 1e6
