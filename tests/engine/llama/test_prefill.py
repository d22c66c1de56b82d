"""What a slot need not compute again: by prefix, and to the bit where that is asked."""

from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.engine.llama.prefill import Prefill
from ark_trio.engine.llama.wish import Wish

PIECE = 4
Cell = tuple[int, int, int]
"""A token's cache: the token, and between where the batch was cut that computed it."""


@define
class Computer:
    """Does to a slot what llama.cpp does, remembering how each token was computed."""

    cells: dict[int, list[Cell]] = field(factory=dict)
    evaluated: int = 0

    async def evaluate(self, slot: int, tokens: list[int], *, reuse: bool) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        held = self.cells.get(slot, []) if reuse else []
        common = 0
        while common < min(len(held), len(tokens)) and held[common][0] == tokens[common]:
            common += 1
        begin = min(common, len(tokens) - 1)
        fresh = [(token, begin, len(tokens)) for token in tokens[begin:]]
        self.cells[slot] = held[:begin] + fresh
        self.evaluated += len(fresh)
        return {"prompt_n": len(fresh), "cache_n": begin, "prompt_ms": 1.0}

    def generate(self, slot: int, *tokens: int) -> None:
        """As after an answer: tokens were added one by one."""
        cells = self.cells[slot]
        for token in tokens:
            cells.append((token, len(cells), len(cells) + 1))


def prefill(computer: Any) -> Prefill:
    return Prefill(computer, slots=2, piece=PIECE)


def fresh(tokens: list[int]) -> list[Cell]:
    """The cells of a first computation."""
    return [
        (token, at // PIECE * PIECE, min(len(tokens), at // PIECE * PIECE + PIECE))
        for at, token in enumerate(tokens)
    ]


async def test_a_second_turn_computes_only_what_is_new():
    computer = Computer()
    cache = prefill(computer)
    first = list(range(10))
    await cache.run(0, first)
    computer.generate(0, 90, 91)
    again = await cache.run(0, [*first, 90, 91, 92])
    # The new token, and the last of those that were there: llama.cpp computes at least one.
    assert (again.evaluated, again.cached) == (2, 11)


PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=14)


@settings(max_examples=200)
@given(st.lists(st.tuples(PROMPTS, st.booleans(), st.sampled_from(["", "s"])), max_size=5), PROMPTS)
def test_exactly_is_as_if_computed_afresh_whatever_came_before(
    before: list[tuple[list[int], bool, str]], last: list[int]
):
    async def run() -> None:
        computer = Computer()
        cache = prefill(computer)
        for prompt, exact, salt in before:
            await cache.run(0, prompt, exact=exact, salt=salt)
            computer.generate(0, 0, 1)
        evaluation = await cache.run(0, last, exact=True)
        assert computer.cells[0] == fresh(last)
        assert 0 <= evaluation.cached < len(last) or len(last) == 0

    trio.run(run)


async def test_exactly_reuses_whole_pieces():
    computer = Computer()
    cache = prefill(computer)
    await cache.run(0, list(range(14)), exact=True)
    before = computer.evaluated
    again = await cache.run(0, list(range(14)), exact=True)
    # The last piece, and one token to cut it off.
    assert computer.evaluated - before == 3
    assert again.cached == 12


@given(st.lists(PROMPTS, max_size=5))
def test_afterwards_the_slot_holds_the_prompt_and_nothing_else(prompts: list[list[int]]):
    async def run() -> None:
        computer = Computer()
        cache = prefill(computer)
        for prompt in prompts:
            await cache.run(0, prompt)
            assert [token for token, *_ in computer.cells[0]] == prompt

    trio.run(run)


async def test_prompts_of_another_salt_share_nothing():
    computer = Computer()
    cache = prefill(computer)
    await cache.run(0, list(range(10)), salt="a")
    assert (await cache.run(0, list(range(10)), salt="b")).cached == 0
    assert (await cache.run(0, list(range(11)), salt="b")).cached == 10
    assert (await cache.run(0, list(range(11)))).cached == 0


async def test_what_is_not_known_to_be_there_is_not_reused():
    computer = Computer()
    cache = prefill(computer)
    await cache.run(0, list(range(10)), salt="a")
    cache.forget(0)
    assert (await cache.run(0, list(range(10)))).cached == 0


@pytest.mark.parametrize(
    ("held", "tokens", "spared"),
    [
        ([1, 2, 3], [1, 2, 3, 4], 3),
        ([1, 2, 3, 4, 5], [1, 2, 9], 0),
        ([], [1], 0),
        ([1, 2], [1, 5], 1),
    ],
)
def test_a_slot_fits_unless_it_would_lose_more_than_it_spares(
    held: list[int], tokens: list[int], spared: int
):
    cache = prefill(Computer())
    cache.note(1, held, salt="")
    assert cache.fits(Wish(req_id="", tokens=tokens))(1) == spared
    assert cache.fits(Wish(req_id="", tokens=tokens, salt="x"))(1) == 0
