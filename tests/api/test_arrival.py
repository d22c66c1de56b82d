"""A body on its way in is collected, bounded and refused as by Quart, and given away whole."""

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestEntityTooLarge

from ark_trio.api.arrival import Body
from ark_trio.errors import BodyTooLarge, Unavailable

PIECES = st.lists(st.binary(max_size=8), max_size=6)


async def whole(body: Any) -> Any:
    """What comes of it: all, or that it is refused. None: more is to come."""
    with trio.move_on_after(1):
        try:
            return await (body.whole() if isinstance(body, Body) else body)
        except (BodyTooLarge, RequestEntityTooLarge):
            return "too large"
    return None


@given(
    pieces=PIECES,
    announced=st.none() | st.integers(0, 30),
    most=st.integers(0, 30),
    end=st.booleans(),
)
def test_pieces_become_a_body_as_by_quart(
    pieces: list[bytes], announced: int | None, most: int, end: bool
):
    async def compare() -> None:
        ours, theirs = Body(announced, most), TrioBody(announced, most)
        for piece in pieces:
            ours.feed(piece)
            theirs.append(piece)
        if end:
            ours.end()
            theirs.set_complete()
        assert await whole(ours) == await whole(theirs)

    trio.run(compare, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_who_waits_for_the_whole_is_woken_at_its_end(autojump_clock: trio.testing.MockClock):
    body = Body(None, 100)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def feed() -> None:
            for piece in (b"a", b"b", b"c"):
                await trio.sleep(1)
                body.feed(piece)
            await trio.sleep(1)
            body.end()

        assert await body.whole() == b"abc"
        assert trio.current_time() == pytest.approx(4, abs=0.1)


async def test_who_waits_is_told_at_once_that_it_is_refused():
    body = Body(None, 2)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            nursery.start_soon(_feed_late, body)
            with pytest.raises(BodyTooLarge):
                await body.whole()


async def _feed_late(body: Body) -> None:
    await trio.testing.wait_all_tasks_blocked()
    body.feed(b"abc")


async def test_nothing_is_kept_of_what_is_refused_or_taken():
    refused, taken = Body(None, 100), Body(None, 100)
    for body in (refused, taken):
        body.feed(b"some")
    refused.fail(Unavailable("no room"))
    refused.feed(b"more")
    taken.end()
    assert await taken.whole() == b"some"
    with pytest.raises(Unavailable):
        await refused.whole()
    assert not refused._data
    assert not taken._data


async def test_a_body_in_one_piece_is_not_copied():
    body, piece = Body(None, 100), bytes(50)
    body.feed(piece)
    body.end()
    assert await body.whole() is piece


async def test_many_small_pieces_cost_what_they_hold():
    body = Body(None, 10_000)
    for _ in range(10_000):
        body.feed(b"x")
    assert isinstance(body._data, bytearray)
    assert len(body._data) == 10_000
