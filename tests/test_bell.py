"""A bell wakes who waits, and nobody who comes later."""

import trio

from ark_trio.bell import Bell


async def test_it_wakes_all_who_wait_and_none_who_come_later(autojump_clock):
    bell, woken = Bell(), []

    async def wait(name: str, begin_s: float) -> None:
        await trio.sleep(begin_s)
        await bell.heard()
        woken.append((name, trio.current_time() - began))

    began = trio.current_time()
    bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "one", 0)
        nursery.start_soon(wait, "two", 1)
        nursery.start_soon(wait, "late", 3)
        for _ in range(2):
            await trio.sleep(2)
            bell.ring()
    assert sorted(woken) == [("late", 4), ("one", 2), ("two", 2)]


async def test_who_gives_up_waiting_takes_nobodys_call(autojump_clock):
    bell = Bell()
    with trio.move_on_after(1):
        await bell.heard()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.heard)
            await trio.sleep(1)
            bell.ring()
