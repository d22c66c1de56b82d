"""Idle connections: closed in time, at once when the server ends, and without a task that waits for either."""

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from ark_trio.config import Limits
from ark_trio.hyper.idle import IdleDeadline, Termination
from tests.support.fake_engine import MODEL, open_fake_decoder, saying
from tests.support.stack import RawClient, Stack, open_stack
from tests.support.wire import chat, post

GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


async def asked(stack: Stack) -> RawClient:
    """Return a client that has been answered, and stays."""
    client = await stack.connect()
    await client.send(GET)
    await client.read_until(b"\r\n\r\n")
    return client


async def closes_after_s(client: RawClient) -> float:
    began = trio.current_time()
    await client.read_to_end()
    await client.stream.aclose()
    return trio.current_time() - began


def come_late(connection: Any) -> None:
    """Have the time be up when something has just been read, once."""
    handover = connection._handover
    take = handover.take

    async def take_late(data: bytes) -> bool:
        handover.take = take
        connection._idle._until = trio.current_time()
        taken = await take(data)
        connection._idle.scope.cancel()
        return bool(taken)

    handover.take = take_late


async def test_a_connection_without_a_request_is_closed_in_time(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(idle_s=7))) as stack:
            assert 6.9 < await closes_after_s(await stack.connect()) < 7.1
            client = await asked(stack)
            await trio.sleep(5)
            await client.send(GET)
            await client.read_until(b"\r\n\r\n", 2)
            assert 6.9 < await closes_after_s(client) < 7.1
            await stack.assert_as_before()


async def test_a_connection_is_not_idle_while_it_is_answered(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"abc", gap_s=5)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(idle_s=1))) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL, stream=True)))
            await client.read_until(b"[DONE]")
            assert await closes_after_s(client) < 1.1
            await stack.assert_as_before()


async def test_idle_connections_are_closed_at_once_when_the_server_ends(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(settle_s=0))) as stack:
            clients = [await asked(stack), await stack.connect()]
            await stack.signals.send(signal.SIGTERM)
            with trio.fail_after(1):
                for client in clients:
                    await closes_after_s(client)
                await stack.stopped.wait()


async def test_a_connection_has_one_task_when_it_is_idle(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            before = trio.lowlevel.current_statistics().tasks_living
            clients = [await asked(stack) for _ in range(10)]
            await trio.sleep(0.1)
            assert trio.lowlevel.current_statistics().tasks_living - before == 10
            for client in clients:
                await client.stream.aclose()


@pytest.mark.parametrize("late", [GET, GET[:-2] + b"x:\t1\r\n\r\n"], ids=["plain", "by-h11"])
async def test_a_request_that_comes_as_the_time_is_up_is_answered(
    late: bytes, autojump_clock: trio.testing.MockClock
):
    """The deadline had passed when it was read, and ended it before the engine was asked or after."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(idle_s=7))) as stack:
            client = await asked(stack)
            await trio.sleep(1)
            (connection,) = cast(Any, stack.server.config.door._addresses)
            come_late(connection)
            del connection
            await client.send(late)
            await client.read_until(b"\r\n\r\n", 2)
            assert 6.9 < await closes_after_s(client) < 7.1
            await stack.assert_as_before()


async def test_an_idleness_that_a_request_ended_in_time_is_not_the_next_one_s(
    autojump_clock: trio.testing.MockClock,
):
    """Its scope may have been cancelled in the turn in which the request came, and was answered."""
    deadline, seen = IdleDeadline(Termination(), SimpleNamespace(keep_alive_timeout=7)), []
    deadline.begin()
    await trio.sleep(7)
    seen.append(deadline.over)
    deadline.end()
    seen.append(deadline.over)
    deadline.begin()
    seen.append(deadline.over)
    await trio.sleep(7)
    seen.append(deadline.over)
    assert seen == [True, False, False, True]


async def test_the_server_s_end_has_nothing_to_say_to_connections_that_are_gone(
    autojump_clock: trio.testing.MockClock,
):
    """Of each that was idle when its client left, the scope would be kept as long as the server."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            idle = cast(Any, stack.server)._context.terminated.idle
            client = await asked(stack)
            assert len(idle) == 1
            await client.stream.aclose()
            await trio.sleep(0.1)
            assert not idle
