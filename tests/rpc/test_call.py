"""What one call does to its connection and to the task that owns it."""

import pytest
import trio
import trio.testing
from grpclib.exceptions import GRPCError
from hyperframe.frame import DataFrame, HeadersFrame

from ark_trio.rpc.call import Call, Letter
from tests.support.engine_line import Side

HEAD = b"\x88\x0f\x10\x10application/grpc"
OK = b"\x00\x0bgrpc-status\x010"


async def test_a_short_call_takes_one_write_and_wakes_its_task_once(
    monkeypatch: pytest.MonkeyPatch,
):
    side = Side(short=True)
    call = side.call()
    before, woken = side.transport.writes, 0
    wait = Call._stir

    async def count(self: Call[bytes]) -> None:
        nonlocal woken
        await wait(self)
        woken += 1

    monkeypatch.setattr(Call, "_stir", count)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run, "/x", Letter(b"ask"), [("x-request-id", "a")])
        await trio.testing.wait_all_tasks_blocked()
        assert side.transport.writes == before + 1
        frames = [
            HeadersFrame(1, HEAD, flags=["END_HEADERS"]).serialize(),
            *[DataFrame(1, b"\0\0\0\0\x02hi").serialize()] * 16,
            HeadersFrame(1, OK, flags=["END_HEADERS", "END_STREAM"]).serialize(),
        ]
        side.take(b"".join(frames))
    assert call._sink.messages == [b"hi"] * 16  # type: ignore[attr-defined]
    assert (woken, side.transport.writes) == (1, before + 1)
    assert not side.protocol.h2.streams


async def test_messages_behind_a_good_head_are_taken_in_the_same_read():
    side = Side(short=True)
    call = side.call()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run, "/x", Letter(b"ask"), [])
        await trio.testing.wait_all_tasks_blocked()
        side.take(
            HeadersFrame(1, HEAD, flags=["END_HEADERS"]).serialize()
            + DataFrame(1, b"\0\0\0\0\x02hi").serialize()
        )
        assert call._sink.messages == [b"hi"]  # type: ignore[attr-defined]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "head",
    [
        b"\x8e\x0f\x10\x10application/grpc",  # status 500
        b"\x88\x0f\x10\x09text/html",
        HEAD + OK,
    ],
)
async def test_nothing_is_taken_behind_a_head_that_is_not_good(head: bytes):
    side = Side(short=True)
    call = side.call()
    outcomes: list[Exception | None] = []

    async def run() -> None:
        try:
            await call.run("/x", Letter(b"ask"), [])
        except GRPCError as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        side.take(
            HeadersFrame(1, head, flags=["END_HEADERS"]).serialize()
            + DataFrame(1, b"\0\0\0\0\x02hi").serialize()
        )
    assert len(outcomes) == 1
    assert call._sink.messages == []  # type: ignore[attr-defined]
    assert not side.protocol.processor.streams
