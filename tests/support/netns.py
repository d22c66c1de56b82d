"""Sockets in other network namespaces, and the namespaces that tests make.

A socket belongs for good to the namespace of the thread that made it: so one that is made in a thread that has gone there
can be used from anywhere.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: Path) -> None:
    """Take the calling thread into a network namespace, for good."""
    with namespace.open("rb") as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def run_in(namespace: Path, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own that is in the namespace; what it returns or raises."""

    def there() -> T:
        enter(namespace)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(there).result()


def connect(namespace: Path, host: str, port: int, within_s: float = 10) -> socket.socket:
    """A socket of that namespace, connected."""
    return run_in(namespace, lambda: socket.create_connection((host, port), within_s))


def sweep(folder: Path, prefix: str) -> list[Path]:
    """Things there that a dead test process made: their names are prefix, its id, and more."""
    left = []
    for path in folder.glob(f"{prefix}*"):
        pid = path.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            left.append(path)
    return left


def own_name(prefix: str) -> str:
    """A name by which `sweep` finds it when we have died."""
    return f"{prefix}{os.getpid()}-{os.urandom(3).hex()}"


def ip(*words: str) -> None:
    """Run iproute2's `ip`."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
