"""A decoder and gateways with short limits, for attacks on real processes; a client beside them who must not notice."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import Factory, define

from tests.support.processes import Served, engine, gateway
from tests.support.wire import chat, connected, post, read_until

LIMITS = {
    "ARK_HEAD_S": "2",
    "ARK_BODY_S": "2",
    "ARK_STALLED_WRITE_S": "3",
    "ARK_SETTLE_S": "0",
    "ARK_MAX_CONNECTIONS": "600",
    "ARK_MAX_WAITING": "0",
}
PATIENCE_S = 3.0
"""The longest silence that a client may notice who gets a token every 20 ms: the machine that tests run on is busy."""


@pytest.fixture(scope="session")
def target() -> Iterator[Served]:
    with engine("decoder", "--served-names", "echo", "--slots", "1024") as served:
        yield served


@pytest.fixture(scope="session", params=("proxy", "hypercorn-trio"))
def attacked(request: pytest.FixtureRequest, target: Served) -> Iterator[Served]:
    with gateway(request.param, [target.port], env=LIMITS) as served:
        yield served
        assert "connection_crashed" not in served.log


@define(eq=False)
class Bystander:
    """A stream that goes on, and what its client has noticed."""

    sock: socket.socket
    chunks: int = 0
    longest_s: float = 0.0
    failure: str | None = None
    _stop: threading.Event = Factory(threading.Event)

    def read(self) -> None:
        before = time.monotonic()
        self.sock.settimeout(10)
        try:
            while not self._stop.is_set():
                data = self.sock.recv(65536)
                if not data:
                    self.failure = "closed"
                    return
                self.chunks += data.count(b'"content":"')
                now = time.monotonic()
                self.longest_s, before = max(self.longest_s, now - before), now
        except OSError as error:
            self.failure = repr(error)


@contextmanager
def bystander(door: Served) -> Iterator[Bystander]:
    """Have a stream run beside the block; at its end it has gone on all the time, and still does."""
    with connected(door.port) as sock:
        sock.sendall(post(chat("count=100000 gap_s=0.02")))
        read_until(sock, b'"content":"')
        here = Bystander(sock)
        reader = threading.Thread(target=here.read)
        reader.start()
        try:
            yield here
            seen = here.chunks
            time.sleep(0.5)
            assert here.failure is None
            assert here.chunks > seen + 3
            assert here.longest_s < PATIENCE_S
        finally:
            here._stop.set()
            reader.join(15)


@contextmanager
def crowd(
    door: Served, count: int, *, receive_buffer: int | None = None
) -> Iterator[list[socket.socket]]:
    """Many connections of one attacker."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(10)
            sock.connect(("127.0.0.1", door.port))
            socks.append(sock)
        yield socks
    finally:
        for sock in socks:
            sock.close()
