"""A scripted decoder that speaks OpenAI's HTTP: what stands behind the proxies that know no gRPC.

A stream is a connection there, so a step is a write for each. `python bench/decoders/sse.py PORT`.
"""

import heapq
import itertools
import json
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.decoders.messages import MODEL, stamp

_HEAD: Final = b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,' % (
    b"b" * 32
)  # fmt: skip
_NO_FINISH: Final = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_ROLE: Final = _HEAD + b'"delta":{"role":"assistant","content":""' + _NO_FINISH
_LAST: Final = _HEAD + b'"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_STREAM: Final = _OK % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


def _token() -> bytes:
    return _HEAD + b'"delta":{"content":" ' + stamp() + b'"' + _NO_FINISH


class Connection:
    """One client; its requests come one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.fd = sock.fileno()
        self._input = b""
        self.left = 0
        self.pace_s = 0.0

    def read(self) -> bool:
        """Take what has come, and say whether a paced stream has begun."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError
        self._input += data
        head, found, rest = self._input.partition(b"\r\n\r\n")
        if not found:
            return False
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        size = int(length or b"0")
        if len(rest) < size:
            return False
        self._input = rest[size:]
        return self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> bool:
        if not head.startswith(b"POST"):
            served = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            self._send_json(served)
            return False
        asked = json.loads(body)
        tokens = asked["max_tokens"]
        pace_ms = int(asked["messages"][-1]["content"].partition("pace=")[2])
        if not asked.get("stream"):
            text = " ".join(stamp().decode() for _ in range(tokens))
            said = {"role": "assistant", "content": text}
            self._send_json({"choices": [{"message": said, "finish_reason": "length"}]})
            return False
        self.left, self.pace_s = tokens - 1, pace_ms / 1000
        first = _STREAM + _chunk(_ROLE) + _chunk(_token())
        if not pace_ms:
            first += _chunk(_token()) * self.left + _chunk(_LAST) + b"0\r\n\r\n"
            self.left = 0
        self.sock.sendall(first)
        return self.left > 0

    def _send_json(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.sock.sendall(
            _OK % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body
        )

    def step(self) -> bool:
        """Write the next token, and say whether another is to follow."""
        self.left -= 1
        text = _chunk(_token())
        if not self.left:
            text += _chunk(_LAST) + b"0\r\n\r\n"
        self.sock.sendall(text)
        return self.left > 0


class Server:
    """All connections, in one thread; those of one pace step together."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[float, int, Connection]] = []
        self._order = itertools.count()

    def serve(self) -> None:
        """Serve until the process is ended."""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1.0
            for fd, _ in self._poll.poll(wait):
                self._handle(fd)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                due, _, connection = heapq.heappop(self._due)
                if self._connections.get(connection.fd) is connection:
                    self._step(due, connection)

    def _handle(self, fd: int) -> None:
        if fd == self._listener.fileno():
            sock, _ = self._listener.accept()
            self._connections[sock.fileno()] = Connection(sock)
            self._poll.register(sock.fileno(), select.EPOLLIN)
            return
        connection = self._connections[fd]
        try:
            if connection.read():
                # Steps fall on the same instants for all streams of a pace.
                steps = time.monotonic() // connection.pace_s + 1
                self._pace(steps * connection.pace_s, connection)
        except OSError:
            self._drop(fd)

    def _step(self, due: float, connection: Connection) -> None:
        try:
            if connection.step():
                self._pace(due + connection.pace_s, connection)
        except OSError:
            self._drop(connection.fd)

    def _pace(self, due: float, connection: Connection) -> None:
        heapq.heappush(self._due, (due, next(self._order), connection))

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._connections.pop(fd).sock.close()


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        Server(listener).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
