"""Signals, in every phase of a request: what the client gets, how long it takes, and that nothing is left."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen

from ark_trio.config import Limits
from tests.lifetimes.test_client import PHASES, Phase, _obstacle, flood
from tests.support.fake_engine import MODEL, FakeEngine, open_fake_decoder, saying
from tests.support.stack import RawClient, Stack, open_stack
from tests.support.wire import CHAT, chat, post

SETTLE_S, DRAIN_S, END_S = 5.0, 60.0, 1.0


@frozen(kw_only=True)
class Cell:
    """A request that has come as far as its phase, and the process that serves it."""

    stack: Stack
    engine: FakeEngine
    client: RawClient
    phase: Phase
    began: float

    @property
    def elapsed(self) -> float:
        return trio.current_time() - self.began

    async def signal(self, *numbers: int) -> None:
        for number in numbers:
            await self.stack.signals.send(number)
            await trio.sleep(0.001)

    async def assert_stopped(self, within_s: float) -> None:
        """The server has ended within the time, and nothing of the request is left."""
        with trio.fail_after(within_s + 0.2):
            await self.stack.stopped.wait()
        assert self.stack.gateway.admission.running == int(self.phase.queued)
        assert not self.stack.gateway._open
        for call in self.engine.calls:
            with trio.fail_after(0.1):
                await call.ended.wait()

    def assert_told(self) -> None:
        """The client was told that the gateway stops, in the way that its phase allows."""
        error = self.client.error
        assert error is not None
        assert error["message"] == "The gateway is being stopped."
        if self.client.status == 200:
            assert bytes(self.client.received).rstrip(b"\r\n0").endswith(b"data: [DONE]")
        else:
            assert self.client.status == 503


@asynccontextmanager
async def at(phase: Phase, **limits: Any) -> AsyncIterator[Cell]:
    async with open_fake_decoder(phase.script) as decoder:
        more = {"max_requests": 1} if phase.queued else {}
        base = {
            "max_wait_s": 1000,
            "connect_s": 1000,
            "first_token_s": 1000,
            "between_tokens_s": 1000,
            "keep_alive_s": 1000,
        }
        settings = decoder.settings(limits=Limits(**{**base, **more, **limits}))
        async with open_stack(settings) as stack, _obstacle(phase, stack):
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL, stream=phase.stream)))
            if phase.until is not None:
                await client.read_until(phase.until)
            await trio.sleep(0.01)
            yield Cell(
                stack=stack,
                engine=decoder.engine,
                client=client,
                phase=phase,
                began=trio.current_time(),
            )
            await client.stream.aclose()


EACH_PHASE = pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)


@EACH_PHASE
async def test_sigterm(phase: Phase, autojump_clock: trio.testing.MockClock):
    """/readyz off, settle, drain, then an error frame: what does not end by itself is ended and told."""
    async with at(phase) as cell:
        await cell.signal(signal.SIGTERM)
        assert cell.stack.gateway.leaving
        assert not cell.stack.gateway.draining
        await cell.client.read_to_end()
        assert cell.elapsed == pytest.approx(SETTLE_S + DRAIN_S, abs=END_S)
        cell.assert_told()
        await cell.assert_stopped(END_S)


@EACH_PHASE
async def test_second_sigterm(phase: Phase, autojump_clock: trio.testing.MockClock):
    async with at(phase) as cell:
        await cell.signal(signal.SIGTERM, signal.SIGTERM)
        await cell.client.read_to_end()
        assert cell.elapsed < END_S
        cell.assert_told()
        await cell.assert_stopped(END_S)


@EACH_PHASE
async def test_sigint(phase: Phase, autojump_clock: trio.testing.MockClock):
    async with at(phase) as cell:
        await cell.signal(signal.SIGINT)
        await cell.client.read_to_end()
        assert cell.elapsed < END_S
        cell.assert_told()
        await cell.assert_stopped(END_S)


@EACH_PHASE
async def test_sighup(phase: Phase, autojump_clock: trio.testing.MockClock):
    """New settings touch nothing that runs."""
    async with at(phase) as cell:
        before = bytes(cell.client.received)
        await cell.signal(signal.SIGHUP)
        await trio.sleep(1)
        assert [e["event"] for e in cell.stack.log].count("settings_reloaded") == 1
        assert bytes(cell.client.received) == before
        assert not cell.stack.stopped.is_set()
        assert all(call.how is None for call in cell.engine.calls)


async def test_sigterm_idle(autojump_clock: trio.testing.MockClock):
    """With nothing to wait for, the end is at once: idle connections are closed, nobody settles."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            idle, fresh = await stack.connect(), await stack.connect()
            await idle.send(post(chat("hi", model=MODEL)))
            await idle.read_until(b"0\r\n\r\n")
            began = trio.current_time()
            await stack.signals.send(signal.SIGTERM)
            await idle.read_to_end()
            await fresh.read_to_end()
            with trio.fail_after(0.1):
                await stack.stopped.wait()
            assert trio.current_time() - began < 0.6  # a moment for what was accepted last
            await idle.stream.aclose()
            await fresh.stream.aclose()


async def test_sigterm_lets_a_stream_finish(autojump_clock: trio.testing.MockClock):
    """A stream that ends within the drain is whole, and the process goes with it, not at the limit."""
    async with open_fake_decoder(saying(*"abcdef", gap_s=6)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL)))
            await client.read_until(b'"content":"a"')
            await stack.signals.send(signal.SIGTERM)
            await client.read_to_end()
            assert b'"finish_reason":"stop"' in client.received
            assert trio.current_time() < 45
            with trio.fail_after(1):
                await stack.stopped.wait()
            assert [end["outcome"] for end in stack.ends] == ["completed"]
            await client.stream.aclose()


async def test_sigterm_serves_new_requests_while_settling(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a", gap_s=20)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            running = await stack.connect()
            await running.send(post(chat("hi", model=MODEL)))
            await trio.sleep(0.1)
            await stack.signals.send(signal.SIGTERM)
            await trio.sleep(SETTLE_S - 1)
            probe = await stack.connect()
            await probe.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            await probe.read_to_end()
            assert probe.status == 503
            assert b"draining" in probe.received
            late = await stack.connect()
            await late.send(post(chat("hi", model=MODEL)))
            await trio.sleep(2)  # the settling is over
            with pytest.raises(ConnectionRefusedError):
                await stack.connect()
            await late.read_to_end()
            await running.read_to_end()
            assert b"[DONE]" in late.received
            assert b"[DONE]" in running.received
            for client in (probe, late, running):
                await client.stream.aclose()


@pytest.mark.parametrize("coding", ["length", "chunks"])
async def test_sigint_within_a_body(coding: str, autojump_clock: trio.testing.MockClock):
    """A client that still sends is told why nobody goes on reading."""
    framing = "content-length: 1000" if coding == "length" else "transfer-encoding: chunked"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(head.encode() + (b"{" if coding == "length" else b"5\r\n{"))
            await trio.sleep(1)
            await stack.signals.send(signal.SIGINT)
            await client.read_to_end()
            assert client.status == 503
            assert client.error is not None
            assert client.error["message"] == "The gateway is being stopped."
            with trio.fail_after(END_S):
                await stack.stopped.wait()
            assert [end["outcome"] for end in stack.ends] == ["shutting_down"]
            await client.stream.aclose()


async def test_sigint_with_stalled_readers(autojump_clock: trio.testing.MockClock):
    """Clients that do not read can't hold the end up."""

    async with open_fake_decoder(flood) as decoder:
        async with open_stack(decoder.settings()) as stack:
            clients = [await stack.connect(receive_buffer=2048) for _ in range(50)]
            for client in clients:
                await client.send(post(chat("hi", model=MODEL)))
            await trio.sleep(3)
            began = trio.current_time()
            await stack.signals.send(signal.SIGINT)
            with trio.fail_after(END_S + 0.5):
                await stack.stopped.wait()
            assert trio.current_time() - began < END_S + 0.5
            for client in clients:
                await client.stream.aclose()
