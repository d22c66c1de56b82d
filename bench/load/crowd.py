"""Many clients in one thread: connects, asks and reads, whatever is ready."""

import select
import time
from collections.abc import Callable

from attrs import frozen

from bench.load.grpc import GrpcCalls, stream_request
from bench.load.http import HttpCalls, chat_request
from bench.load.meter import tree
from bench.load.tape import Call, Tape
from bench.load.witness import Witness

Connection = HttpCalls | GrpcCalls


@frozen(kw_only=True)
class Target:
    """Whom the load goes to."""

    port: int
    pid: int
    """Of the process at whose descendants the CPU is measured."""
    direct: bool = False
    """It is a decoder, which is read without a gateway."""

    def pids(self) -> list[int]:
        """Return its processes."""
        return tree(self.pid)


class TooSlow(Exception):
    """What was waited for did not come in time."""


class Crowd:
    """The clients of one load."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.tape = Tape()
        self.witness = Witness()
        self.connections: list[Connection] = []
        self._by_fd: dict[int, Connection] = {}
        self._poll = select.epoll()

    @property
    def calls(self) -> list[Call]:
        """All calls so far."""
        return [call for connection in self.connections for call in connection.calls]

    @property
    def busy(self) -> int:
        """Connections on which an answer is still to end."""
        return sum(connection.busy for connection in self._by_fd.values())

    def connect(self, *, stream: bool = True) -> Connection:
        """Open one more connection; a decoder that is read directly has one for all."""
        if self.target.direct and self.connections:
            return self.connections[0]
        port, tape = self.target.port, self.tape
        direct = self.target.direct
        connection = GrpcCalls(port, tape) if direct else HttpCalls(port, tape, stream=stream)
        connection.connect()
        self.connections.append(connection)
        self._by_fd[connection.fileno()] = connection
        self._poll.register(connection.fileno(), select.EPOLLIN)
        return connection

    def leave(self, connection: Connection) -> None:
        """Close a connection; its calls still count."""
        if not self.target.direct:
            del self._by_fd[connection.fileno()]
            self._poll.unregister(connection.fileno())
            connection.close()

    def request(self, *, tokens: int, pace_ms: int, stream: bool = True) -> bytes:
        """Return a request in the target's protocol."""
        text = f"Tell me of rivers. pace={pace_ms}"
        if self.target.direct:
            return stream_request(tokens=tokens, text=text)
        return chat_request(tokens=tokens, text=text, stream=stream)

    def read_until(self, come: Callable[[], bool], within_s: float) -> None:
        """Read until `come()`.

        Raises:
            TooSlow: it did not come.
        """
        end = time.monotonic() + within_s
        while not come():
            if time.monotonic() > end:
                raise TooSlow(f"{self.busy} answers are still under way")
            self._read_once(0.05)

    def read_for(self, seconds: float) -> None:
        """Read as long as that."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read_once(left)

    def _read_once(self, wait_s: float) -> None:
        self.witness.look()
        for fd, _ in self._poll.poll(wait_s):
            connection = self._by_fd[fd]
            connection.read()
            if isinstance(connection, HttpCalls) and connection.calls[-1].failure:
                self.leave(connection)

    def close(self) -> None:
        """Leave all."""
        for connection in self._by_fd.values():
            connection.close()
        self._poll.close()
