"""The door for monitoring: it answers /metrics, and nothing that comes through it can stop the engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from ark_trio.engine.scrape import ANSWER_S, READERS, serve_scrapes
from ark_trio.errors import Unavailable
from ark_trio.rpc.server import bind_tcp

GET = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"


async def tell() -> bytes:
    await trio.lowlevel.checkpoint()
    return b"up 1\n"


@asynccontextmanager
async def serving(said=tell) -> AsyncIterator[int]:
    with bind_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_scrapes, listener, said)
            await trio.testing.wait_all_tasks_blocked()
            yield port
            nursery.cancel_scope.cancel()


async def exchange(port: int, sent: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(sent)
        return b"".join([piece async for piece in stream])


async def test_a_scrape_is_answered_and_the_connection_closed():
    async with serving() as port:
        for _ in range(2 * READERS):
            answer = await exchange(port, GET)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"content-type: text/plain; version=" in answer
            assert answer.endswith(b"\r\n\r\nup 1\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"GET /metrics?name=up HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 405),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * (20 << 10), 431),
    ],
)
async def test_whatever_is_asked_has_its_answer(sent: bytes, status: int):
    async with serving() as port:
        answer = await exchange(port, sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        if sent.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n")
        assert (await exchange(port, GET)).endswith(b"up 1\n")


@pytest.mark.parametrize(("error", "status"), [(Unavailable("away"), 503), (KeyError("x"), 500)])
async def test_an_engine_that_does_not_answer_is_told_and_lives_on(error: Exception, status: int):
    async def fail() -> bytes:
        await trio.lowlevel.checkpoint()
        raise error

    async with serving(fail) as port:
        for _ in range(2):
            assert (await exchange(port, GET)).startswith(b"HTTP/1.1 %d " % status)


async def test_scrapers_that_say_nothing_or_leave_hold_up_the_next_no_longer_than_the_bound(
    autojump_clock: trio.testing.MockClock,
):
    async with serving() as port:
        for _ in range(READERS):  # these leave at once
            gone = await trio.open_tcp_stream("127.0.0.1", port)
            await gone.send_all(GET[:10])
            await gone.aclose()
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(READERS)]
        began = trio.current_time()
        assert (await exchange(port, GET)).endswith(b"up 1\n")
        assert trio.current_time() - began <= ANSWER_S + 1
        for stream in silent:
            await stream.aclose()
