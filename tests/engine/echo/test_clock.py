"""The step clock, on virtual time."""

from collections.abc import Callable
from itertools import pairwise

import trio
from trio.testing import MockClock

from ark_trio.engine.echo.clock import StepClock


def counted(times: list[float], limit: int) -> Callable[[], bool]:
    def step() -> bool:
        times.append(trio.current_time())
        return len(times) < limit

    return step


async def test_equal_gaps_share_instants_whenever_they_begin(autojump_clock: MockClock):
    clock = StepClock()
    late: list[float] = []
    early: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        async with trio.open_nursery() as players:
            players.start_soon(lambda: clock.play(counted(early, 20), gap_s=0.1))
            await trio.sleep(0.25)
            players.start_soon(lambda: clock.play(counted(late, 10), gap_s=0.1))
        nursery.cancel_scope.cancel()
    assert set(late) < set(early)
    gaps = {round(b - a, 6) for a, b in pairwise(early)}
    assert gaps == {0.1}


async def test_a_delay_comes_first_and_once(autojump_clock: MockClock):
    clock = StepClock()
    times: list[float] = []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await clock.play(counted(times, 3), gap_s=1, delay_s=90)
        nursery.cancel_scope.cancel()
    assert 90 <= times[0] - began <= 91
    assert times[-1] - times[0] == 2


async def test_a_cancelled_player_is_not_called_any_more(autojump_clock: MockClock):
    clock = StepClock()
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        with trio.move_on_after(5.5):
            await clock.play(counted(times, 1000), gap_s=1)
        said = len(times)
        await trio.sleep(10)
        assert len(times) == said
        nursery.cancel_scope.cancel()
    assert 5 <= said <= 6


async def test_without_a_gap_others_still_get_their_turn(autojump_clock: MockClock):
    clock = StepClock()
    fast: list[float] = []
    slow: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        async with trio.open_nursery() as players:
            players.start_soon(lambda: clock.play(counted(fast, 1000), gap_s=0))
            players.start_soon(lambda: clock.play(counted(slow, 3), gap_s=0.1))
        nursery.cancel_scope.cancel()
    assert (len(fast), len(slow)) == (1000, 3)
