"""Tokens gather only where processor time is short, never for long, and not at all where that is switched off."""

import time

import pytest
import trio
import trio.testing

from ark_trio.relay.pressure import LOOK_S, Pressure

MOST_S = 0.02


def pressed(*shares: float, most_s: float = MOST_S) -> Pressure:
    pressure = Pressure(most_s=most_s)
    for share in shares:
        pressure.see(share)
    return pressure


@pytest.mark.parametrize("share", [0.0, 0.3, 0.69, 0.7])
def test_with_time_to_spare_nothing_gathers(share: float):
    assert pressed(*[share] * 20).window_s() == 0


@pytest.mark.parametrize("share", [0.95, 1.0, 3.0])
def test_without_any_it_gathers_for_as_long_as_may_be_and_no_longer(share: float):
    assert pressed(*[share] * 20).window_s() == pytest.approx(MOST_S, rel=1e-3)
    assert max(pressed(*[share] * count).window_s() for count in range(50)) <= MOST_S


def test_between_the_two_the_window_grows_with_the_pressure():
    windows = [pressed(*[share] * 20).window_s() for share in (0.72, 0.75, 0.8, 0.85, 0.9)]
    assert windows == sorted(windows)
    assert 0 < windows[0] < windows[-1] < MOST_S


def test_one_busy_moment_opens_it_halfway_and_it_closes_when_that_is_over():
    assert pressed(1.0).window_s() == MOST_S / 2
    assert pressed(1.0, *[0.1] * 5).window_s() == 0


def test_switched_off_it_never_opens():
    assert pressed(*[1.0] * 20, most_s=0.0).window_s() == 0


def test_a_reload_counts_at_the_next_look():
    pressure = pressed(*[1.0] * 20)
    pressure.most_s = 0.0
    pressure.see(1.0)
    assert pressure.window_s() == 0


async def test_a_thread_that_runs_all_the_time_is_seen_and_so_is_its_rest():
    """In real time: it is the kernel that counts."""
    pressure = Pressure(most_s=MOST_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pressure.watch)
        with trio.fail_after(10):
            while not pressure.window_s():
                end = time.monotonic() + LOOK_S / 4
                while time.monotonic() < end:
                    pass
                await trio.lowlevel.checkpoint()
            while pressure.window_s():
                await trio.sleep(LOOK_S)
        nursery.cancel_scope.cancel()


async def test_time_that_jumps_is_no_measure(autojump_clock: trio.testing.MockClock):
    pressure = Pressure(most_s=MOST_S)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pressure.watch)
        await trio.sleep(100 * LOOK_S)
        assert pressure.window_s() == 0
        nursery.cancel_scope.cancel()
