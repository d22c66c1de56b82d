"""A body that is not taken waits with its client, not here."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import h2.connection
import pytest
import trio
from hypercorn.utils import wrap_app

from ark_trio.config import Settings
from ark_trio.hyper.config import hyper_config
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.idle import EndingContext
from ark_trio.hyper.patch import mend_protocols

HELD_BYTES = 2 << 20
"""Ten pieces of 64 KiB, what was read ahead of them, and h2's or h11's own buffers."""
Send = Callable[[bytes], Awaitable[None]]
CHUNK = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"


async def asleep(_scope: Any, _receive: Any, _send: Any) -> None:
    """An application that takes nothing of its request."""
    await trio.sleep_forever()


async def taken_of(body: Any) -> int:
    """How much of what a client sends disappears in the server; the kernel keeps little of it."""
    mend_protocols()
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    app = wrap_app(asleep, 0, "asgi")
    connection = Connection(app, hyper_config(Settings()), EndingContext(), {}, stream)
    client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    sent = 0

    async def send(piece: bytes) -> None:
        nonlocal sent
        await client.send_all(piece)
        sent += len(piece)
        if sent > 2 * HELD_BYTES:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        with trio.move_on_after(2):
            await body(client, send)
        nursery.cancel_scope.cancel()
    await client.aclose()
    return sent


async def http1(_client: Any, send: Send) -> None:
    await send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await send(CHUNK)


async def http2(client: Any, send: Send) -> None:
    """By the rules: as much as the server says that it has room for."""
    speaker = h2.connection.H2Connection()
    speaker.initiate_connection()
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
    speaker.send_headers(1, fields)
    while True:
        await send(speaker.data_to_send())
        if size := min(speaker.local_flow_control_window(1), speaker.max_outbound_frame_size):
            speaker.send_data(1, b"x" * size)
        else:
            speaker.receive_data(await client.receive_some(65536))


@pytest.mark.parametrize("body", [http1, http2])
async def test_a_body_that_is_not_taken_fills_a_short_queue_and_no_more(
    body: Any, autojump_clock: trio.testing.MockClock
):
    taken = await taken_of(body)
    print(taken)
    assert 100_000 < taken < HELD_BYTES
