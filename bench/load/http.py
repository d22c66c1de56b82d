"""A call over HTTP/1.1 on a socket of its own."""

import json
import socket
import time

from bench.load.arrival import note_arrivals, receive
from bench.load.tape import Call, Tape


def chat_request(*, tokens: int, text: str, stream: bool) -> bytes:
    """Return a chat request as a client sends it."""
    system = {"role": "system", "content": "You are a helpful assistant."}
    asked = {
        "model": "bench",
        "messages": [system, {"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0.7,
        "stream": stream,
    }
    body = json.dumps(asked).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"accept: text/event-stream\r\nauthorization: Bearer none\r\nuser-agent: bench\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body


class Reply:
    """An answer's head and framing."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self._rest = b""
        self._left: int | None = None
        """Bytes to come of a body of known length; None: it comes in chunks."""

    def feed(self, data: bytes) -> bytes:
        """Return what `data` adds to the body."""
        self._rest += data
        if not self.status:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return b""
            self._begin(head.lower())
            self._rest = rest
        if self._left is None:
            return self._unchunked()
        body, self._rest = self._rest, b""
        self._left -= len(body)
        self.complete = self._left <= 0
        return body

    def _begin(self, head: bytes) -> None:
        self.status = int(head.split(b" ", 2)[1])
        if b"\r\ntransfer-encoding: chunked" not in head:
            self._left = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0])

    def _unchunked(self) -> bytes:
        rest, at, pieces = self._rest, 0, []
        while (line := rest.find(b"\r\n", at)) >= 0:
            size = int(rest[at:line], 16)
            end = line + 2 + size
            if len(rest) < end + 2:
                break
            pieces.append(rest[line + 2 : end])
            at = end + 2
            if not size:
                self.complete = True
        self._rest = rest[at:]
        return b"".join(pieces)


class HttpCalls:
    """Requests on one connection, one after the other."""

    def __init__(self, port: int, tape: Tape, *, stream: bool = True) -> None:
        self._tape = tape
        self._stream = stream
        self._began = time.monotonic()
        self._sock: socket.socket | None = None
        self._port = port
        self._reply = Reply()
        self._body = b""
        self.calls: list[Call] = []

    def connect(self) -> None:
        """Connect; on loopback that takes no time."""
        self._began = time.monotonic()
        self._sock = socket.create_connection(("127.0.0.1", self._port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(0)
        note_arrivals(self._sock)

    def fileno(self) -> int:
        """Return the socket's number."""
        assert self._sock is not None  # noqa: S101 (it is connected)
        return self._sock.fileno()

    def ask(self, request: bytes) -> None:
        """Send a request; its answer is the last of `calls`."""
        began = time.monotonic() if self.calls else self._began
        self.calls.append(Call(self._tape, began))
        self._reply, self._body = Reply(), b""
        assert self._sock is not None  # noqa: S101 (it is connected)
        self._sock.sendall(request)

    def read(self) -> None:
        """Take what has come."""
        call = self.calls[-1]
        assert self._sock is not None  # noqa: S101 (it is connected)
        data, now = receive(self._sock)
        if not data:
            call.failure = call.failure or "closed before the end"
            return
        reply = self._reply
        text = reply.feed(data)
        if self._stream:
            call.hear(text, now)
        else:
            self._body += text
        if reply.complete:
            self._complete(call, now)

    def _complete(self, call: Call, now: float) -> None:
        if self._reply.status != 200:
            call.failure = f"status {self._reply.status}"
        elif not self._stream:
            choice = json.loads(self._body)["choices"][0]
            call.count([word.encode() for word in choice["message"]["content"].split()], now)
            call.ended = choice["finish_reason"] == "length"
        if not call.ended:
            call.failure = call.failure or "no proper end"

    @property
    def busy(self) -> bool:
        """The last answer is still to end."""
        if not self.calls:
            return False
        last = self.calls[-1]
        return last.failure is None and not self._reply.complete

    def close(self) -> None:
        """Leave."""
        if self._sock is not None:
            self._sock.close()
