"""A flag does what asyncio's event does: differential, over all orders of a few steps."""

import asyncio
import itertools
from typing import Any

import pytest

from ark_trio.rpc.flag import Flag

STEPS = ("set", "clear", "wait", "cancel")


async def play(flag: Any, steps: tuple[str, ...]) -> list[Any]:
    """Take the steps, and return what each waiter saw, and whether it is set."""
    waiters: list[asyncio.Task[bool]] = []
    seen: list[Any] = []
    for step in steps:
        if step == "wait":
            waiters.append(asyncio.ensure_future(flag.wait()))
        elif step == "cancel":
            for waiter in waiters[:1]:
                waiter.cancel()
        else:
            getattr(flag, step)()
        seen.append(flag.is_set())
        await asyncio.sleep(0)
        seen.append([waiter.done() for waiter in waiters])
    for waiter in waiters:
        waiter.cancel()
    return [*seen, *map(repr, await asyncio.gather(*waiters, return_exceptions=True))]


@pytest.mark.parametrize("length", [1, 3, 5])
def test_it_does_as_asyncios_event(length):
    async def compare() -> None:
        for steps in itertools.product(STEPS, repeat=length):
            assert await play(Flag(), steps) == await play(asyncio.Event(), steps), steps

    asyncio.run(compare())
