"""Turns at the batch, and prefill that takes them: what is given up is not computed any more."""

from typing import cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from ark_trio.engine.llama.client import LlamaClient
from ark_trio.engine.llama.prefill import Prefill
from ark_trio.engine.llama.slots import SlotPool
from ark_trio.engine.llama.turns import Turns

PIECE = 128
BATCH_S = 1.0


async def waiting(turns: Turns, nursery: trio.Nursery, *wanted: tuple[int, int]) -> list[int]:
    """Have each (slot, tokens) ask for a turn; return the list of slots that got one, which grows."""
    got: list[int] = []

    async def ask(slot: int, tokens: int) -> None:
        await turns.take(slot, tokens)
        got.append(slot)

    for slot, tokens in wanted:
        nursery.start_soon(ask, slot, tokens)
        await wait_all_tasks_blocked()
    return got


async def test_what_fits_together_goes_together(nursery: trio.Nursery):
    turns = Turns(PIECE)
    got = await waiting(turns, nursery, (0, 60), (1, 68), (2, 1))
    assert got == [0, 1]
    turns.give_back(1)
    await wait_all_tasks_blocked()
    assert got == [0, 1, 2]


async def test_nobody_overtakes(nursery: trio.Nursery):
    turns = Turns(PIECE)
    got = await waiting(turns, nursery, (0, 100), (1, PIECE), (2, 1), (3, 1))
    assert got == [0]
    turns.give_back(0)
    await wait_all_tasks_blocked()
    assert got == [0, 1]
    turns.give_back(1)
    await wait_all_tasks_blocked()
    assert sorted(got) == [0, 1, 2, 3]


async def test_a_turn_given_back_twice_counts_once(nursery: trio.Nursery):
    turns = Turns(PIECE)
    got = await waiting(turns, nursery, (0, PIECE), (1, PIECE), (2, PIECE))
    turns.give_back(0)
    turns.give_back(0)
    await wait_all_tasks_blocked()
    assert got == [0, 1]


async def test_one_who_leaves_the_queue_holds_up_nobody(nursery: trio.Nursery):
    turns = Turns(PIECE)
    async with trio.open_nursery() as leaving:
        assert await waiting(turns, leaving, (0, 100), (1, PIECE)) == [0]
        got = await waiting(turns, nursery, (2, 20))
        assert got == []
        leaving.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    assert got == [2]


async def test_one_who_leaves_as_the_turn_comes_gives_it_back(nursery: trio.Nursery):
    turns = Turns(PIECE)
    async with trio.open_nursery() as leaving:
        assert await waiting(turns, leaving, (0, PIECE), (1, PIECE)) == [0]
        leaving.cancel_scope.cancel()
        turns.give_back(0)
    assert await waiting(turns, nursery, (2, PIECE)) == [2]


@define(eq=False)
class Computer:
    """A client that computes a batch at a time, in the order of asking, and stops for nobody, as llama.cpp does."""

    nursery: trio.Nursery
    batches: list[int] = field(factory=list)
    """Slots, as their pieces began."""
    busy: set[int] = field(factory=set)
    lock: trio.Lock = field(factory=trio.Lock)

    async def evaluate(self, slot: int, tokens: list[int], *, reuse: bool) -> dict[str, float]:
        done = trio.Event()
        self.busy.add(slot)
        self.nursery.start_soon(self._compute, slot, done)
        await done.wait()
        cached = len(tokens) - PIECE
        return {"prompt_n": PIECE, "cache_n": cached, "prompt_ms": BATCH_S * 1000}

    async def _compute(self, slot: int, done: trio.Event) -> None:
        async with self.lock:
            self.batches.append(slot)
            await trio.sleep(BATCH_S)
        self.busy.discard(slot)
        done.set()

    async def at_rest(self, slot: int) -> bool:
        await trio.lowlevel.checkpoint()
        return slot not in self.busy


@pytest.mark.parametrize("apart_s", [0.0, 0.01])
async def test_cancelled_prompts_free_all_slots_after_the_batch_that_runs(
    nursery: trio.Nursery, autojump_clock: MockClock, apart_s: float
):
    computer = Computer(nursery)
    prefill = Prefill(cast(LlamaClient, computer), slots=4, piece=PIECE)
    pool = SlotPool(
        4, max_waiting=0, at_rest=computer.at_rest, nursery=nursery, on_free=prefill.at_rest
    )

    async def call(scope: trio.CancelScope) -> None:
        with scope:
            async with pool.slot() as slot:
                await prefill.run(slot, [slot] * 20 * PIECE)

    scopes = [trio.CancelScope() for _ in range(4)]
    for scope in scopes:
        nursery.start_soon(call, scope)
    await trio.sleep(5.5 * BATCH_S)
    assert sorted(computer.batches[:4]) == [0, 1, 2, 3]  # in turns
    begun = len(computer.batches)
    for scope in scopes:
        scope.cancel()
        await trio.sleep(apart_s)
    with trio.fail_after(BATCH_S):
        while pool.busy:
            await trio.sleep(0.01)
    assert len(computer.batches) == begun
    # And the next prompt finds its turn.
    with trio.fail_after(2 * BATCH_S):
        async with pool.slot() as slot:
            await prefill.run(slot, [9] * PIECE)
    assert len(computer.batches) == begun + 1
