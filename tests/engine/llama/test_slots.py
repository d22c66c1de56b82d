"""The slot pool, on virtual time."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ark_trio.engine.llama.slots import SlotPool
from ark_trio.errors import InternalError, Overloaded


async def at_rest(_slot: int) -> bool:
    await trio.lowlevel.checkpoint()
    return True


def pool(nursery: trio.Nursery, count: int = 2, max_waiting: int = 1, rest=at_rest) -> SlotPool:
    return SlotPool(count, max_waiting=max_waiting, at_rest=rest, nursery=nursery)


async def test_each_slot_has_one_holder(nursery: trio.Nursery):
    slots = pool(nursery)
    async with slots.slot() as one, slots.slot() as other:
        assert {one, other} == {0, 1}
        assert (slots.busy, slots.queued) == (2, 0)
    assert slots.busy == 0


async def test_beyond_the_queue_is_refused_at_once(nursery: trio.Nursery):
    slots = pool(nursery, count=1, max_waiting=1)
    got = trio.Event()

    async def wait() -> None:
        async with slots.slot():
            got.set()

    async with slots.slot():
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert slots.queued == 1
        with pytest.raises(Overloaded):
            async with slots.slot():
                pass
    await got.wait()


async def test_a_free_slot_is_never_refused(nursery: trio.Nursery):
    slots = pool(nursery, count=1, max_waiting=0)
    async with slots.slot():
        with pytest.raises(Overloaded):
            async with slots.slot():
                pass
    async with slots.slot():
        pass


async def test_those_who_wait_are_served_in_order(nursery: trio.Nursery):
    slots = pool(nursery, count=1, max_waiting=10)
    order: list[int] = []

    async def wait(number: int) -> None:
        async with slots.slot():
            order.append(number)

    async with trio.open_nursery() as waiters:
        async with slots.slot():
            for number in range(5):
                waiters.start_soon(wait, number)
                await wait_all_tasks_blocked()
    assert order == list(range(5))


async def test_a_waiter_that_leaves_takes_no_slot(nursery: trio.Nursery):
    slots = pool(nursery, count=1, max_waiting=10)
    async with slots.slot():
        with trio.CancelScope() as scope:
            scope.cancel()
            async with slots.slot():
                pytest.fail("got a slot that is taken")
    assert (slots.busy, slots.queued) == (0, 0)


async def test_a_slot_given_up_is_free_once_it_rests(
    nursery: trio.Nursery, autojump_clock: MockClock
):
    resting = False

    async def rest(_slot: int) -> bool:
        await trio.lowlevel.checkpoint()
        return resting

    slots = pool(nursery, count=1, rest=rest)
    with trio.move_on_after(1):
        async with slots.slot():
            await trio.sleep_forever()
    await trio.sleep(5)
    assert slots.busy == 1
    resting = True
    await trio.sleep(0.1)
    assert slots.busy == 0


@pytest.mark.parametrize("known", [False, True])
async def test_a_slot_is_never_lost(nursery: trio.Nursery, autojump_clock: MockClock, known: bool):
    async def rest(_slot: int) -> bool:
        await trio.lowlevel.checkpoint()
        if known:
            return False
        raise InternalError("x")

    slots = pool(nursery, count=1, rest=rest)
    with pytest.raises(ValueError, match="boom"):
        async with slots.slot():
            raise ValueError("boom")
    await trio.sleep(3600)
    assert slots.busy == 0


async def test_the_slot_that_fits_best_is_taken_or_else_the_one_free_for_longest(
    nursery: trio.Nursery,
):
    slots = pool(nursery, count=3)
    async with slots.slot(lambda number: number) as best:
        assert best == 2
    for expected in (0, 1, 2, 0):
        async with slots.slot() as number:
            assert number == expected


async def test_a_slot_still_at_work_is_free_once_it_rests(
    nursery: trio.Nursery, autojump_clock: MockClock
):
    working = True

    async def rest(_slot: int) -> bool:
        await trio.lowlevel.checkpoint()
        return not working

    slots = pool(nursery, count=1, rest=rest)
    async with slots.slot() as number:
        slots.mark_at_work(number)
    await trio.sleep(1)
    assert slots.busy == 1
    working = False
    await trio.sleep(1)
    assert slots.busy == 0
    async with slots.slot():
        pass
    assert slots.busy == 0


async def test_a_waiter_that_is_given_a_slot_as_it_leaves_passes_it_on(nursery: trio.Nursery):
    slots = pool(nursery, count=1, max_waiting=10)
    leaving = trio.CancelScope()

    async def leave() -> None:
        with leaving:
            async with slots.slot():
                pytest.fail("it had left")

    async with slots.slot():
        nursery.start_soon(leave)
        await wait_all_tasks_blocked()
        leaving.cancel()  # it has not run since, and the slot becomes free now
    await wait_all_tasks_blocked()
    assert (slots.busy, slots.queued) == (0, 0)
