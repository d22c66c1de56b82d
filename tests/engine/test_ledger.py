"""How a call ended is told as it was, however the exception came."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from ark_trio.engine.ledger import Ledger

Work = Callable[[], Awaitable[None]]


async def wait_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError


async def fail_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail)


async def fail_while_cancelled() -> None:
    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_at_the_end)


@pytest.mark.parametrize(
    ("work", "ended"),
    [
        (trio.lowlevel.checkpoint, "finished"),
        (trio.sleep_forever, "cancelled"),
        (wait_in_a_nursery, "cancelled"),
        (fail, "failed"),
        (fail_in_a_nursery, "failed"),
        (fail_while_cancelled, "failed"),
    ],
)
async def test_a_call_is_recorded_as_it_ended(
    work: Work, ended: str, autojump_clock: trio.testing.MockClock
):
    ledger = Ledger()

    async def call() -> None:
        with ledger.record("r"):
            await work()

    raised: BaseException | None = None
    try:
        with trio.move_on_after(5):
            await call()
    except (ValueError, ExceptionGroup) as error:
        raised = error
    told = ledger.outputs("r")
    assert [one["ended"] for one in told["calls"]] == [ended]
    assert told[ended] == 1
    assert ledger.running == 0
    assert (raised is not None) == (ended == "failed")
