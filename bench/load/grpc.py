"""Calls to a decoder itself, over one HTTP/2 connection: what a gateway's answers are compared with."""

import socket
import time

from ark_wire import ark_pb2
from bench.decoders import frames
from bench.load.arrival import note_arrivals, receive
from bench.load.tape import STAMP, Call, Tape

_PATH = b"/inference.Inference/StreamingCall"
_HEADERS = (
    b"\x83\x86\x04"  # POST, http, :path as a literal; RFC 7541
    + bytes((len(_PATH),))
    + _PATH
    + b"\x01\x09127.0.0.1\x0f\x10\x10application/grpc\x00\x02te\x08trailers"
)
_WIDE = 2**30


def stream_request(*, tokens: int, text: str) -> bytes:
    """Return a request as the gateways send it."""
    texts = [b"You are a helpful assistant.", text.encode()]
    inputs = {
        "messages.role": ark_pb2.Value(bytes_list=ark_pb2.BytesList(values=[b"system", b"user"])),
        "messages.content": ark_pb2.Value(bytes_list=ark_pb2.BytesList(values=texts)),
        "max_new_tokens": ark_pb2.Value(int64_=tokens),
    }
    body = ark_pb2.InferenceRequest(inputs=inputs).SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


class GrpcCalls:
    """All calls of a load, on one connection."""

    def __init__(self, port: int, tape: Tape) -> None:
        self._tape = tape
        self._port = port
        self._sock: socket.socket | None = None
        self._input = bytearray()
        self._texts: dict[int, bytes] = {}
        self._open: dict[int, Call] = {}
        self._next = 1
        self.calls: list[Call] = []
        self.data_frames = 0
        self.data_reads = 0
        """Reads that brought DATA frames: their ratio tells how a decoder writes."""

    def connect(self) -> None:
        """Connect, with windows that never close."""
        self._sock = socket.create_connection(("127.0.0.1", self._port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        note_arrivals(self._sock)
        window = frames.INITIAL_WINDOW_SIZE.to_bytes(2, "big") + _WIDE.to_bytes(4, "big")
        settings = frames.frame(frames.SETTINGS, 0, 0, window)
        self._sock.sendall(frames.PREFACE + settings + frames.window_update(0, _WIDE))

    def fileno(self) -> int:
        """Return the socket's number."""
        assert self._sock is not None  # noqa: S101 (it is connected)
        return self._sock.fileno()

    def ask(self, request: bytes) -> None:
        """Begin a call."""
        number, self._next = self._next, self._next + 2
        call = self._open[number] = Call(self._tape, time.monotonic())
        self.calls.append(call)
        self._texts[number] = b""
        assert self._sock is not None  # noqa: S101 (it is connected)
        self._sock.sendall(
            frames.frame(frames.HEADERS, frames.END_HEADERS, number, _HEADERS)
            + frames.frame(frames.DATA, frames.END_STREAM, number, request)
        )

    def read(self) -> None:
        """Take what has come."""
        assert self._sock is not None  # noqa: S101 (it is connected)
        before = self.data_frames
        data, now = receive(self._sock)
        if not data:
            for call in self._open.values():
                call.failure = "closed before the end"
            self._open.clear()
        self._input += data
        for kind, flags, number, payload in frames.cut(self._input):
            self._take(kind, flags, number, payload, now)
        self.data_reads += self.data_frames > before

    def _take(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        call = self._open.get(number)
        if kind == frames.DATA and call is not None:
            self.data_frames += 1
            text = self._texts[number] + payload
            size = 5 + int.from_bytes(text[1:5], "big")
            while len(text) >= max(5, size):
                self._message(call, text[5:size], now)
                text = text[size:]
                size = 5 + int.from_bytes(text[1:5], "big")
            self._texts[number] = text
        if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM and call:
            call.failure = None if call.ended else "no proper end"
            del self._open[number]
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._send(frames.frame(frames.SETTINGS, frames.ACK, 0))
        elif kind == frames.PING and not flags & frames.ACK:
            self._send(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.RST_STREAM and call is not None:
            call.failure = "reset"
            del self._open[number]

    def _message(self, call: Call, message: bytes, now: float) -> None:
        response = ark_pb2.InferenceResponse.FromString(message)
        outputs = response.outputs
        content = outputs["choice.message.content"].bytes_
        if content:
            call.count([match[1] for match in STAMP.finditer(content + b'"')] or [content], now)
        if outputs["choice.finish_reason"].bytes_:
            call.ended = True

    def _send(self, data: bytes) -> None:
        assert self._sock is not None  # noqa: S101 (it is connected)
        self._sock.sendall(data)

    @property
    def busy(self) -> bool:
        """Some answer is still to end."""
        return bool(self._open)

    def close(self) -> None:
        """Leave."""
        if self._sock is not None:
            self._sock.close()
