"""One connection to the stepped decoder: frames in, steps out, within both windows of flow control."""

import socket
from typing import Protocol

from hpack import Decoder

from ark_wire import ark_pb2
from bench.decoders import frames, messages

_BEGIN = b"\x88\x0f\x10\x10application/grpc"  # :status 200, content-type; RFC 7541, never indexed
_END = b"\x00\x0bgrpc-status\x010"
_UNIMPLEMENTED = _BEGIN + b"\x00\x0bgrpc-status\x0212"
_WIDE = 2**30
_TURN = 32
"""Tokens that a stream without a pace writes before the next one has its turn."""


class Driver(Protocol):
    """What drives connections."""

    def pace(self, stream: "Stream", pace_ms: int) -> None:
        """Call `step` with the stream every so often."""

    def want(self, connection: "Connection", *, writing: bool) -> None:
        """Call `flush` when the socket takes something."""


class Stream:
    """One call."""

    def __init__(self, connection: "Connection", number: int, window: int) -> None:
        self.connection = connection
        self.number = number
        self.path = ""
        self.body = bytearray()
        self.window = window
        self.left = 0
        """Tokens to come."""
        self.owed = 0
        """Tokens of these whose time has come, but that no window had room for."""
        self.gone = False
        self.token_head = frames.head(frames.DATA, 0, number, messages.TOKEN_BYTES)


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket, driver: Driver) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._driver = driver
        self.fd = sock.fileno()
        self._input = bytearray()
        self._output = b""
        self._headers = Decoder()
        self._begun = False
        self._window = frames.DEFAULT_WINDOW
        self._initial_window = frames.DEFAULT_WINDOW
        self._streams: dict[int, Stream] = {}
        self._indebted: dict[Stream, None] = {}

    def close(self) -> None:
        """Give up every stream."""
        for stream in self._streams.values():
            stream.gone = True
        self._sock.close()

    def read(self) -> None:
        """Take what has come.

        Raises:
            OSError: the peer has gone.
        """
        data = self._sock.recv(262_144)
        if not data:
            raise ConnectionResetError
        self._input += data
        if not self._begun:
            if len(self._input) < len(frames.PREFACE):
                return
            del self._input[: len(frames.PREFACE)]
            self._begun = True
            self._write(frames.frame(frames.SETTINGS, 0, 0) + frames.window_update(0, _WIDE))
        for kind, flags, number, payload in frames.cut(self._input):
            self._take(kind, flags, number, payload)
        self._pay()

    def flush(self) -> None:
        """Write on."""
        output, self._output = self._output, b""
        self._driver.want(self, writing=False)
        self._write(output)
        self._pay()

    def step(self, streams: list[Stream]) -> None:
        """Write the next token of each."""
        ready = []
        for stream in streams:
            stream.owed += 1
            if stream.owed > 1 or stream.window < messages.TOKEN_BYTES or self._output:
                self._indebted[stream] = None
            else:
                ready.append(stream)
        room = self._window // messages.TOKEN_BYTES
        self._indebted.update(dict.fromkeys(ready[room:]))
        self._write_tokens(ready[:room])
        self._pay()

    def _write_tokens(self, streams: list[Stream]) -> None:
        if not streams:
            return
        body = messages.token()
        output = body.join([stream.token_head for stream in streams]) + body
        self._window -= len(streams) * messages.TOKEN_BYTES
        for stream in streams:
            stream.window -= messages.TOKEN_BYTES
            stream.owed -= 1
            stream.left -= 1
            if not stream.left:
                self._indebted[stream] = None
        self._write(output)

    def _pay(self) -> None:
        """Write what is owed, as far as the windows allow and the socket takes it."""
        while self._indebted and not self._output:
            body = messages.token()
            output = [self._turn(stream, body) for stream in tuple(self._indebted)]
            if not any(output):
                return
            self._write(b"".join(output))

    def _turn(self, stream: Stream, body: bytes) -> bytes:
        room = min(stream.window, self._window) // messages.TOKEN_BYTES
        count = min(stream.owed, room, _TURN)
        stream.owed -= count
        stream.left -= count
        self._spend(stream, count * messages.TOKEN_BYTES)
        output = (stream.token_head + body) * count
        if not stream.left:
            return output + self._end(stream)
        if not stream.owed:
            del self._indebted[stream]
        return output

    def _end(self, stream: Stream) -> bytes:
        """Return what ends a stream; nothing while a window has no room for it."""
        if min(stream.window, self._window) < len(messages.LAST):
            return b""
        self._spend(stream, len(messages.LAST))
        self._forget(stream)
        return frames.frame(frames.DATA, 0, stream.number, messages.LAST) + frames.frame(
            frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream.number, _END
        )

    def _spend(self, stream: Stream, size: int) -> None:
        stream.window -= size
        self._window -= size

    def _forget(self, stream: Stream) -> None:
        stream.gone = True
        self._streams.pop(stream.number, None)
        self._indebted.pop(stream, None)

    def _write(self, output: bytes) -> None:
        if self._output:
            self._output += output
            return
        try:
            sent = self._sock.send(output)
        except BlockingIOError:
            sent = 0
        if sent < len(output):
            self._output = output[sent:]
            self._driver.want(self, writing=True)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._open(flags, number, frames.unpadded(flags, payload))
        elif kind == frames.DATA:
            self._collect(flags, number, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._widen(number, int.from_bytes(payload, "big"))
        elif kind == frames.RST_STREAM and number in self._streams:
            self._forget(self._streams[number])
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._adopt(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _open(self, flags: int, number: int, block: bytes) -> None:
        if not flags & frames.END_HEADERS:
            raise ConnectionError("a request's headers in more than one frame")
        stream = self._streams[number] = Stream(self, number, self._initial_window)
        stream.path = dict(self._headers.decode(block, raw=True))[b":path"].decode()

    def _collect(self, flags: int, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.body += frames.unpadded(flags & ~frames.PRIORITY, payload)
            if flags & frames.END_STREAM:
                self._answer(stream)

    def _widen(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
        elif number in self._streams:
            self._streams[number].window += increment

    def _adopt(self, payload: bytes) -> None:
        for key, value in frames.settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._initial_window
                self._initial_window = value
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _answer(self, stream: Stream) -> None:
        body, method = bytes(stream.body[5:]), stream.path.rpartition("/")[2]
        if method == "StreamingCall":
            self._begin(stream, messages.wanted(ark_pb2.InferenceRequest.FromString(body)))
        elif method == "Control":
            reply = messages.status(ark_pb2.ControlRequest.FromString(body)).SerializeToString()
            message = b"\0" + len(reply).to_bytes(4, "big") + reply
            self._reply(stream, _BEGIN, frames.frame(frames.DATA, 0, stream.number, message), _END)
        else:
            self._reply(stream, None, b"", _UNIMPLEMENTED)

    def _reply(self, stream: Stream, begin: bytes | None, data: bytes, end: bytes) -> None:
        first = b""
        if begin is not None:
            first = frames.frame(frames.HEADERS, frames.END_HEADERS, stream.number, begin)
        ends = frames.END_HEADERS | frames.END_STREAM
        last = frames.frame(frames.HEADERS, ends, stream.number, end)
        self._forget(stream)
        self._write(first + data + last)

    def _begin(self, stream: Stream, wanted: messages.Wanted) -> None:
        """Begin an answer: the first token at once, the others at their steps or as fast as they are taken."""
        stream.left = wanted.tokens
        stream.owed = 1 if wanted.pace_ms else wanted.tokens
        self._indebted[stream] = None
        begin = frames.frame(frames.HEADERS, frames.END_HEADERS, stream.number, _BEGIN)
        if not self._output:
            begin += self._turn(stream, messages.token())
        self._write(begin)
        if wanted.pace_ms and stream.left:
            self._driver.pace(stream, wanted.pace_ms)
