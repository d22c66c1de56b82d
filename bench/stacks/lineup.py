"""What is measured: how each decoder and each stack is started, and when it is ready."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from attrs import frozen

from bench.load.meter import tree

ROOT = Path(__file__).parents[2]
OURS = ROOT / ".venv" / "bin"
OTHERS = ROOT / ".venv-bench" / "bin"
READY_S = 30.0

REGIMES = ("stepped", "spread")
"""Of decoders that speak gRPC. What knows HTTP only has `sse`."""


@frozen(kw_only=True)
class Stack:
    """A way to serve OpenAI's HTTP in front of a decoder."""

    name: str
    title: str
    command: Callable[[int, int, Path], Sequence[str]]
    """Of its own port, the decoder's, and a folder for files."""
    behind: tuple[str, ...] = REGIMES
    """The decoders that it understands."""
    ready: str = "/health"


def _nginx(port: int, decoder: int, folder: Path) -> Sequence[str]:
    conf = folder / "nginx.conf"
    conf.write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; worker_rlimit_nofile 10000;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{decoder}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
    )
    return ["/usr/sbin/nginx", "-e", f"{folder}/log", "-p", str(folder), "-c", str(conf)]


def _router(port: int, decoder: int, _: Path) -> Sequence[str]:
    address = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    worker = ["--worker-urls", f"http://127.0.0.1:{decoder}", "--policy", "round_robin"]
    return [str(OTHERS / "vllm-router"), *address, *worker, "--log-level", "error"]


def _python(script: str) -> Callable[[int, int, Path], Sequence[str]]:
    path = ROOT / "bench" / "stacks" / script
    return lambda port, decoder, _: [str(OTHERS / "python"), str(path), str(port), str(decoder)]


def _ours(port: int, decoder: int, _: Path) -> Sequence[str]:
    at = ["--bind", f"127.0.0.1:{port}", "--decoders", f"127.0.0.1:{decoder}"]
    return [str(OURS / "ark-trio"), "proxy", *at]


STACKS = {
    stack.name: stack
    for stack in (
        Stack(name="ours", title="ark-trio", command=_ours, ready="/readyz"),
        Stack(name="strong", title="strong baseline", command=_python("strong.py")),
        Stack(name="predecessor", title="predecessor", command=_python("predecessor.py")),
        Stack(name="router", title="vllm-router (Rust)", command=_router, behind=("sse",)),
        Stack(name="nginx", title="nginx", command=_nginx, behind=("sse",)),
    )
}


@frozen(kw_only=True)
class Running:
    """A process that serves a port."""

    name: str
    port: int
    pid: int
    start_s: float
    """From the command to the first answer that says ready."""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running_decoder(regime: str) -> Iterator[Running]:
    """Run a scripted decoder until the block ends; `echo` is this project's own."""
    port = free_port()
    command = [sys.executable, str(ROOT / "bench" / "decoders" / f"{regime}.py"), str(port)]
    if regime == "echo":
        bind = ["--grpc-bind", f"127.0.0.1:{port}"]
        command = [str(OURS / "ark-trio"), "decoder", "--engine", "echo", *bind]
    with _running(regime, command, port, lambda: _listens(port)) as running:
        yield running


@contextmanager
def running_stack(stack: Stack, decoder: Running) -> Iterator[Running]:
    """Run a stack in front of `decoder` until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = stack.command(port, decoder.port, Path(folder))
        with _running(stack.name, command, port, lambda: _is_ready(port, stack.ready)) as running:
            yield running


@contextmanager
def _running(
    name: str, command: Sequence[str], port: int, ready: Callable[[], bool]
) -> Iterator[Running]:
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment(),
            start_new_session=True, cwd="/",
        )  # fmt: skip
        try:
            while not ready():
                if process.poll() is not None or time.monotonic() - began > READY_S:
                    output.seek(0)
                    raise RuntimeError(f"{name} does not start: {output.read()[-2000:].decode()}")
                time.sleep(0.005)
            yield Running(name=name, port=port, pid=process.pid, start_s=time.monotonic() - began)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    """Return ours without settings of the shell's own; the package of the wire format is found by all."""
    ours = re.compile("ARK_|HTTP_FORWARD_|PREFILL_|PYTHON")
    return {key: value for key, value in os.environ.items() if not ours.match(key)}


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def pin(pid: int, cpus: set[int]) -> None:
    """Let a process tree, with all its threads, run on `cpus` only."""
    for one in tree(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)
