"""Real processes of ours, started and stopped by the tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import httpx2
from attrs import define

BIN = Path(sys.executable).parent
READY_S = 30.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@define(eq=False)
class Process:
    """A running process and what it has printed."""

    popen: subprocess.Popen[bytes]
    output: IO[bytes]

    @property
    def log(self) -> str:
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self, within_s: float) -> int:
        return self.popen.wait(within_s)

    def kill(self) -> None:
        """End it and all of its session at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


def descendants(pid: int) -> list[int]:
    """Those that a process has started, and those that they have."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")  # a child is its thread's
    found = [int(child) for task in tasks for child in task.read_text().split()]
    return found + [each for child in found for each in descendants(child)]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


_starter = ThreadPoolExecutor(1, "starter")
"""The kernel watches the thread that started a process, so it is one that lasts as long as ours does."""


def start(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """Start a command in a session of its own; it is interrupted when this process ends, however that happens."""
    watched = ["setpriv", "--pdeathsig", "INT", *command]
    begin = partial(subprocess.Popen[Any], watched, start_new_session=True, **options)
    return _starter.submit(begin).result()


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a command of this environment in a session of its own; killed when the block ends."""
    with TemporaryFile() as output:
        popen = start(
            [str(BIN / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_plain_environment(), **(env or {})},
        )
        process = Process(popen, output)
        try:
            yield process
        except BaseException:
            sys.stderr.write(f"--- {' '.join(command)}\n{process.log[-4000:]}\n")
            raise
        finally:
            process.kill()


def _plain_environment() -> dict[str, str]:
    """Ours without settings of the tester's own shell."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ARK_", "HTTP_FORWARD_", "PREFILL_"))
    }


def wait_until(condition: Any, within_s: float = READY_S, what: str = "it") -> None:
    """Poll until `condition()` is true."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {within_s} s")
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def is_ready(port: int) -> bool:
    """Whether the gateway on `port` says that it is ready."""
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


@define(eq=False)
class Served(Process):
    """A process that listens on a port."""

    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def engine(
    role: str = "decoder", *flags: str, port: int | None = None, driver: str = "echo"
) -> Iterator[Served]:
    """Run a decoder or prefiller until the block ends."""
    chosen = port or free_port()
    command = ["ark-trio", role, "--engine", driver, "--grpc-bind", f"127.0.0.1:{chosen}", *flags]
    with running(command) as process:
        _await(process, lambda: listens(chosen), f"the {role}")
        yield Served(process.popen, process.output, chosen)


SERVERS = ("proxy", "hypercorn-trio", "hypercorn-asyncio")
"""The ways to serve the gateway."""


@contextmanager
def gateway(
    server: str,
    decoders: Sequence[int],
    *,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Served]:
    """Run a gateway in front of the decoders on `decoders` until the block ends."""
    chosen = port or free_port()
    bind = f"127.0.0.1:{chosen}"
    command = {
        "proxy": ["ark-trio", "proxy", "--bind", bind],
        "hypercorn-trio": ["hypercorn", "-k", "trio", "-b", bind, "ark_trio.app:app"],
        "hypercorn-asyncio": ["hypercorn", "-b", bind, "ark_trio.app:app"],
    }[server]
    addresses = ",".join(f"127.0.0.1:{decoder}" for decoder in decoders)
    with running(command, {"ARK_DECODERS": addresses, **(env or {})}) as process:
        _await(process, lambda: is_ready(chosen) if ready else listens(chosen), server)
        yield Served(process.popen, process.output, chosen)


def _await(process: Process, condition: Any, what: str) -> None:
    def came_true() -> bool:
        if process.popen.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.popen.returncode}:\n{process.log}")
        return bool(condition())

    wait_until(came_true, what=what)
