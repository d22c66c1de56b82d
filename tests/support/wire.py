"""A client on a raw socket, which does what libraries never would: leave, stall, half-close."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import trio

from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import open_channel
from ark_wire.inference import ControlType

CHAT = "/v1/chat/completions"


def chat(content: str, *, stream: bool = True, model: str = "echo", **more: Any) -> bytes:
    """A chat request's body."""
    messages = [{"role": "user", "content": content}]
    return orjson.dumps({"model": model, "messages": messages, "stream": stream, **more})


def post(body: bytes, path: str = CHAT, *, headers: str = "") -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
    return f"{head}{headers}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def connected(port: int, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A socket connected to `port`."""
    with socket.socket() as sock:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        yield sock


def read_until(sock: socket.socket, marker: bytes, count: int = 1, within_s: float = 10) -> bytes:
    """Read until `marker` has come `count` times."""
    data = b""
    end = time.monotonic() + within_s
    while data.count(marker) < count:
        sock.settimeout(max(0.01, end - time.monotonic()))
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {data[-300:]!r}")
        data += more
    return data


def read_to_eof(sock: socket.socket, within_s: float = 10) -> bytes:
    """Read until the server closes."""
    data = b""
    end = time.monotonic() + within_s
    while True:
        sock.settimeout(max(0.01, end - time.monotonic()))
        more = sock.recv(65536)
        if not more:
            return data
        data += more


def status(port: int) -> dict[str, Any]:
    """What the engine on `port` says of itself, asked over its own contract."""

    async def ask() -> dict[str, Any]:
        async with open_bridge() as bridge, open_channel(bridge, "127.0.0.1", port) as channel:
            with trio.fail_after(5):
                return await channel.control(ControlType.GetStatus)

    return trio.run(ask)
