"""A client that leaves or misbehaves, in every phase of its request.

Each test is a cell: the engine has seen its cancel within 100 ms, the one log line says how it ended, and nothing is left.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen

from ark_trio.config import Limits
from ark_trio.fleet.probe import Served
from tests.support.fake_engine import (
    MODEL,
    Call,
    FakeEngine,
    Script,
    finish,
    hang,
    open_fake_decoder,
    saying,
    text,
)
from tests.support.stack import RawClient, Stack, deaf_address, open_stack
from tests.support.wire import chat, post

PROMPT_S = 0.1
"""Time in which the engine must have seen a cancel, and all traces must be gone."""


async def then_hang(call: Call, outbox: Any) -> None:
    await outbox.put(call.say(finish()))
    await trio.sleep_forever()


async def flood(call: Call, outbox: Any) -> None:
    while True:
        await outbox.put(call.say(text("x" * 4000)))
        await trio.sleep(0.001)


@frozen(kw_only=True)
class Phase:
    """Where a request is when something happens to it."""

    script: Script = hang
    stream: bool = True
    until: bytes | None = None
    """What the client has read by then."""
    queued: bool = False
    connecting: bool = False


PHASES = {
    "queued": Phase(queued=True),
    "connecting": Phase(connecting=True),
    "before-first-token": Phase(),
    "mid-stream": Phase(script=saying("a", "b", then=hang), until=b'"content":"b"'),
    "between-last-token-and-done": Phase(
        script=saying("a", then=then_hang), until=b'"finish_reason":"stop"'
    ),
    "non-streaming": Phase(script=saying("a", then=hang), stream=False),
}


@frozen(kw_only=True)
class Cell:
    """A request that has come as far as its phase."""

    stack: Stack
    engine: FakeEngine
    client: RawClient
    phase: Phase

    async def assert_ended(self, outcome: str) -> None:
        """The engine has seen the cancel, the log tells the outcome once, nothing is left."""
        began = trio.current_time()
        if not (self.phase.queued or self.phase.connecting):
            (call,) = self.engine.calls
            with trio.fail_after(PROMPT_S):
                await call.ended.wait()
            assert call.how == "cancelled"
            assert call.ended_at is not None
            assert call.ended_at - began <= PROMPT_S
        await self.stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in self.stack.ends] == [outcome]


@asynccontextmanager
async def at(phase: Phase, **limits: Any) -> AsyncIterator[Cell]:
    """Bring a request to its phase."""
    async with open_fake_decoder(phase.script) as decoder:
        running = {"max_requests": 1} if phase.queued else {}
        settings = decoder.settings(limits=Limits(**{**running, **limits}))
        async with open_stack(settings) as stack, _obstacle(phase, stack):
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL, stream=phase.stream)))
            if phase.until is not None:
                await client.read_until(phase.until)
            await trio.sleep(0.01)
            assert len(decoder.engine.calls) == (not phase.queued and not phase.connecting)
            cell = Cell(stack=stack, engine=decoder.engine, client=client, phase=phase)
            yield cell
            await client.stream.aclose()


@asynccontextmanager
async def _obstacle(phase: Phase, stack: Stack) -> AsyncIterator[None]:
    """What holds a request up in its phase."""
    if phase.queued:
        async with stack.gateway.admission.place():
            stack._before = stack.census()
            yield
    elif phase.connecting:
        address, crowd = deaf_address()
        decoder = stack.gateway.fleet.decoders[0]
        assert decoder._channel is not None
        grpc = decoder._channel._grpc
        grpc.close()
        grpc._port = address.port
        decoder.served = Served(models=(MODEL,))
        await trio.sleep(0.01)
        stack._before = stack.census()
        yield
        for sock in crowd:
            sock.close()
    else:
        yield


async def close(client: RawClient) -> None:
    await client.stream.aclose()


async def reset(client: RawClient) -> None:
    client.reset()


async def half_close(client: RawClient) -> None:
    await client.stream.send_eof()
    with trio.fail_after(PROMPT_S):
        await client.read_to_end()
    await client.stream.aclose()


async def pipeline_and_close(client: RawClient) -> None:
    await client.send(post(chat("next", model=MODEL)))
    await trio.sleep(0.01)
    await client.stream.aclose()


LEAVES: dict[str, Callable[[RawClient], Awaitable[None]]] = {
    "closes": close,
    "resets": reset,
    "half-closes": half_close,
    "closes-after-pipelining": pipeline_and_close,
}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
async def test_client_leaves(
    phase: Phase,
    leave: Callable[[RawClient], Awaitable[None]],
    autojump_clock: trio.testing.MockClock,
):
    async with at(phase) as cell:
        await leave(cell.client)
        await cell.assert_ended("client_gone")


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
async def test_client_leaves_keep_alive_idle(
    leave: Callable[[RawClient], Awaitable[None]], autojump_clock: trio.testing.MockClock
):
    """Between two requests; the pipelined one is then served and given up like any other."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL)))
            await client.read_until(b"0\r\n\r\n")
            await leave(client)
            await stack.assert_as_before(PROMPT_S)
            assert stack.ends[0]["outcome"] == "completed"


async def test_client_idle_for_ever(autojump_clock: trio.testing.MockClock):
    """A connection that is not used is closed in the end, before and after a request."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            fresh, used = await stack.connect(), await stack.connect()
            await used.send(post(chat("hi", model=MODEL)))
            with trio.fail_after(200):
                await used.read_to_end()
                await fresh.read_to_end()
            await fresh.stream.aclose()
            await used.stream.aclose()
            await stack.assert_as_before(PROMPT_S)


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "non-streaming"])
async def test_client_pipelines(stream: bool, autojump_clock: trio.testing.MockClock):
    """Two requests in one go are answered one after the other."""
    async with open_fake_decoder(saying("a", gap_s=1.0)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("one", model=MODEL, stream=stream)) * 2)
            await client.read_until(b"HTTP/1.1 200", count=2)
            await client.read_until(b'"stop"', count=2)
            await trio.sleep(PROMPT_S)
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["completed"] * 2


async def test_client_pipelines_without_end(autojump_clock: trio.testing.MockClock):
    """What is sent ahead of an answer is bounded: the connection is dropped, its call ended."""
    async with at(PHASES["mid-stream"]) as cell:
        with pytest.raises(trio.BrokenResourceError):
            await cell.client.send(post(chat("next", model=MODEL)) * 100_000)
        await cell.client.stream.aclose()
        await cell.assert_ended("client_gone")


@pytest.mark.parametrize("reads", [0, 1], ids=["stops-reading", "reads-a-byte-a-second"])
async def test_client_does_not_read(reads: int, autojump_clock: trio.testing.MockClock):
    """A client that takes no answer is dropped when the write limit has passed, by name."""
    async with open_fake_decoder(flood) as decoder:
        limits = Limits(stalled_write_s=30)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            client = await stack.connect(receive_buffer=2048)
            await client.send(post(chat("hi", model=MODEL)))
            await client.read_until(b'"content"')
            began = trio.current_time()
            (call,) = decoder.engine.calls
            with trio.move_on_after(200) as waiting:
                while reads and not call.ended.is_set():
                    await trio.sleep(1)
                    try:
                        await client.stream.receive_some(1)
                    except trio.BrokenResourceError:
                        break
                await call.ended.wait()
            assert not waiting.cancelled_caught
            assert call.how == "cancelled"
            assert 29 < trio.current_time() - began < 45
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["client_stalled"]


async def test_client_reads_slowly(autojump_clock: trio.testing.MockClock):
    """A slow client that goes on reading is served to its end."""
    async with open_fake_decoder(saying(*["x" * 20_000] * 40)) as decoder:
        limits = Limits(stalled_write_s=5)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            client = await stack.connect(receive_buffer=4096)
            await client.send(post(chat("hi", model=MODEL)))
            while b"[DONE]" not in client.received[-100:]:
                await trio.sleep(0.5)
                client.received += await client.stream.receive_some(16_384)
            assert trio.current_time() > 20
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["completed"]


async def test_client_never_finishes_its_body(autojump_clock: trio.testing.MockClock):
    """408 when the body does not arrive in time; no engine is asked."""
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL))[:-5])
            await client.read_until(b'"error"')
            assert client.status == 408
            assert trio.current_time() == pytest.approx(60, abs=2)
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["request_timeout"]
            assert decoder.engine.calls == []


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
async def test_client_leaves_within_its_body(
    leave: Callable[[RawClient], Awaitable[None]], autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi" * 5000, model=MODEL))[:-5000])
            await trio.sleep(0.01)
            await leave(client)
            await stack.assert_as_before(PROMPT_S)
            assert decoder.engine.calls == []


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "non-streaming"])
async def test_client_says_connection_close(stream: bool, autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            body = chat("hi", model=MODEL, stream=stream)
            await client.send(post(body, headers="connection: close\r\n"))
            with trio.fail_after(2):
                await client.read_to_end()
            assert client.status == 200
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["completed"]


async def test_client_expects_100_continue(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            request = post(chat("hi", model=MODEL), headers="expect: 100-continue\r\n")
            head, _, body = request.partition(b"\r\n\r\n")
            await client.send(head + b"\r\n\r\n")
            await client.read_until(b"100 \r\n")
            await client.send(body)
            await client.read_until(b"[DONE]")
            assert client.status == 200
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)


@pytest.mark.parametrize("how", ["later", "at-once"])
async def test_client_sends_more_after_connection_close(
    how: str, autojump_clock: trio.testing.MockClock
):
    """What stands behind a last request, be it another one, does not cut its answer."""
    async with open_fake_decoder(saying(*"abc", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            more = b"\r\n" if how == "later" else post(chat("hi", model=MODEL))
            last = post(chat("hi", model=MODEL), headers="connection: close\r\n")
            await client.send(last + more * (how == "at-once"))
            await client.read_until(b'"content":"a"')
            await client.send(more * (how == "later"))
            await client.read_to_end()
            assert client.status == 200
            assert b"[DONE]" in client.received
            assert bytes(client.received).count(b"HTTP/1.1 ") == 1
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)


async def test_client_sends_large_requests_one_after_another(
    autojump_clock: trio.testing.MockClock,
):
    """A body over the bound for pipelining, sent as soon as the last answer is whole, is no pipelining."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            request = post(chat("hi " * 100_000, model=MODEL, stream=False))
            for count in range(1, 11):
                await client.send(request)
                await client.read_until(b'"finish_reason":"stop"', count=count)
                while not bytes(client.received).endswith(b"}"):
                    client.received += await client.stream.receive_some(65536)
            await client.stream.aclose()
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["completed"] * 10
