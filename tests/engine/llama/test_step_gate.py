"""The gate at which running streams meet, on virtual time."""

import trio
from trio.testing import MockClock

from ark_trio.engine.llama.step_gate import StepGate


async def test_a_lone_stream_never_waits(autojump_clock: MockClock):
    gate = StepGate(1.0)
    with gate.member():
        began = trio.current_time()
        await gate.pass_together()
        assert trio.current_time() == began


async def test_streams_of_a_step_leave_together(autojump_clock: MockClock):
    gate = StepGate(1.0)
    left: list[float] = []

    async def stream(delay_s: float) -> None:
        with gate.member():
            for _ in range(3):
                await trio.sleep(delay_s)
                await gate.pass_together()
                left.append(round(trio.current_time(), 6))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for delay_s in (0.1, 0.2, 0.3):
            nursery.start_soon(stream, delay_s)
    assert [round(instant - began, 6) for instant in left] == [0.3] * 3 + [0.6] * 3 + [0.9] * 3


async def test_nobody_waits_longer_than_the_window(autojump_clock: MockClock):
    gate = StepGate(0.5)
    began = trio.current_time()
    with gate.member(), gate.member():
        await gate.pass_together()
    assert trio.current_time() - began == 0.5


async def test_the_first_to_lose_patience_takes_the_others_along(autojump_clock: MockClock):
    gate = StepGate(0.5)
    left: list[float] = []
    began = trio.current_time()

    async def stream(delay_s: float) -> None:
        with gate.member():
            await trio.sleep(delay_s)
            await gate.pass_together()
            left.append(round(trio.current_time() - began, 6))
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        for delay_s in (0, 0.3, 5):
            nursery.start_soon(stream, delay_s)
    assert left == [0.5, 0.5, 5.5]


async def test_a_stream_that_ends_is_not_waited_for(autojump_clock: MockClock):
    gate = StepGate(100)
    began = trio.current_time()

    async def leave() -> None:
        with gate.member():
            await trio.sleep(1)

    with gate.member():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.testing.wait_all_tasks_blocked()
            await gate.pass_together()
    assert trio.current_time() - began == 1


async def test_a_stream_cancelled_at_the_gate_blocks_no_one(autojump_clock: MockClock):
    gate = StepGate(100)
    with gate.member():
        with gate.member(), trio.move_on_after(1):
            await gate.pass_together()
        began = trio.current_time()
        await gate.pass_together()
        assert trio.current_time() == began
