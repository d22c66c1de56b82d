"""A scripted ARK decoder that writes a decode step together: one frame a stream, one write a connection.

So does an engine with continuous batching. The frames are put together from pre-built parts, hence it costs a small part
of what it measures; `python bench/decoders/stepped.py PORT`.
"""

import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.decoders.stepped_connection import Connection, Stream


class Clock:
    """The streams of one pace: they take their steps together."""

    def __init__(self, pace_ms: int) -> None:
        self.pace_s = pace_ms / 1000
        self.due = time.monotonic() + self.pace_s
        self.streams: dict[Stream, None] = {}

    def step(self) -> None:
        """Write the next token of every stream."""
        self.due += self.pace_s
        together: dict[Connection, list[Stream]] = {}
        for stream in self.streams:
            together.setdefault(stream.connection, []).append(stream)
        for connection, streams in together.items():
            with suppress(OSError):  # the peer has gone; reading finds it out too
                connection.step(streams)
        for stream in [stream for stream in self.streams if stream.left <= 0 or stream.gone]:
            del self.streams[stream]


class Server:
    """All connections, in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._clocks: dict[int, Clock] = {}

    def serve(self) -> None:
        """Serve until the process is ended."""
        while True:
            now = time.monotonic()
            due = [clock.due for clock in self._clocks.values() if clock.streams]
            wait = max(0.0, min(due) - now) if due else -1.0
            for fd, events in self._poll.poll(wait):
                self._handle(fd, events)
            now = time.monotonic()
            for clock in self._clocks.values():
                if clock.streams and clock.due <= now:
                    clock.step()

    def pace(self, stream: Stream, pace_ms: int) -> None:
        """Have `stream` take its steps with the others of its pace."""
        clock = self._clocks.get(pace_ms)
        if clock is None or not clock.streams:
            clock = self._clocks[pace_ms] = Clock(pace_ms)
        clock.streams[stream] = None

    def want(self, connection: Connection, *, writing: bool) -> None:
        """Be told when `connection` can be written to, too."""
        events = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        self._poll.modify(connection.fd, events)

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._listener.fileno():
            sock, _ = self._listener.accept()
            connection = Connection(sock, self)
            self._connections[connection.fd] = connection
            self._poll.register(connection.fd, select.EPOLLIN)
            return
        connection = self._connections[fd]
        try:
            if events & ~select.EPOLLOUT:
                connection.read()
            else:
                connection.flush()
        except OSError:
            # The peer has gone.
            del self._connections[fd]
            self._poll.unregister(fd)
            connection.close()


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        Server(listener).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
