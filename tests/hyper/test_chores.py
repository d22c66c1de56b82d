"""Chores begin when they are needed and end with the reading."""

import trio
import trio.testing

from ark_trio.hyper.chores import Chores


class Work:
    """Notes that it has begun, and never ends by itself."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0

    async def __call__(self) -> None:
        self.begun += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled += 1
            raise


async def test_nothing_starts_before_the_reading_nor_behind_it():
    chores, work = Chores(), Work()
    assert not chores.start(work)
    async with trio.open_nursery() as nursery:
        chores.begin(nursery)
        chores.stop()
        assert not chores.start(work)
    assert not work.begun


async def test_what_has_started_goes_on_until_it_is_cancelled():
    chores, work = Chores(), Work()
    async with trio.open_nursery() as nursery:
        chores.begin(nursery)
        assert chores.start(work)
        assert chores.start(work)
        chores.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert not work.begun  # it had not had its turn
        chores.begin(nursery)
        assert chores.start(work)
        await trio.testing.wait_all_tasks_blocked()
        assert (work.begun, work.cancelled) == (1, 0)
        chores.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert (work.begun, work.cancelled) == (1, 0)
        await chores.cancel()
        assert (work.begun, work.cancelled) == (1, 1)
    assert (work.begun, work.cancelled) == (1, 1)
