"""What a client sends of a request waits in bounds, and its leaving is never held up."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from ark_trio.hyper.inbox import Inbox

END = {"type": "http.disconnect"}


def piece(number: int) -> dict[str, Any]:
    return {"type": "http.request", "body": b"%d" % number, "more_body": True}


async def test_messages_come_in_order_through_receive():
    inbox = Inbox(10)
    for number in range(3):
        await inbox.put(piece(number))
    await inbox.put(END)
    assert [await inbox.receive() for _ in range(4)] == [piece(0), piece(1), piece(2), END]


async def test_no_more_than_the_limit_waits(autojump_clock: trio.testing.MockClock):
    """A body that an application does not read is not read from the client either."""
    inbox, put = Inbox(3), []

    async def send_many() -> None:
        for number in range(5):
            await inbox.put(piece(number))
            put.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_many)
        await trio.testing.wait_all_tasks_blocked()
        assert put == [0, 1, 2]
        assert await inbox.receive() == piece(0)
        await trio.testing.wait_all_tasks_blocked()
        assert put == [0, 1, 2, 3]
        nursery.cancel_scope.cancel()


async def test_the_leaving_needs_no_room():
    inbox = Inbox(1)
    await inbox.put(piece(0))
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.put(END)
    assert [await inbox.receive(), await inbox.receive()] == [piece(0), END]


@pytest.mark.parametrize("before", [0, 1, 3])
async def test_a_taker_gets_what_waits_and_all_that_comes(before: int):
    inbox = Inbox(3)
    taken: list[Mapping[str, Any]] = []
    for number in range(before):
        await inbox.put(piece(number))
    inbox.hand_to(taken.append)
    for number in range(before, 6):
        await inbox.put(piece(number))
    await inbox.put(END)
    assert taken == [*map(piece, range(6)), END]


async def test_who_waits_for_room_goes_on_when_a_taker_comes(
    autojump_clock: trio.testing.MockClock,
):
    inbox = Inbox(1)
    taken: list[Mapping[str, Any]] = []
    await inbox.put(piece(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, piece(1))
        await trio.testing.wait_all_tasks_blocked()
        inbox.hand_to(taken.append)
    assert taken == [piece(0), piece(1)]
