"""Which prefiller is asked."""

from collections import Counter, deque
from typing import Any

import pytest
from trio.testing import MockClock

from ark_trio.engine.llama.choosing import SHUN_S, Prefiller, in_order
from ark_trio.engine.llama.wish import Wish

WISH = Wish(req_id="r", tokens=list(range(100)))


def some(count: int) -> list[Prefiller]:
    channel: Any = None
    return [Prefiller(channel=channel, known=deque(maxlen=2)) for _ in range(count)]


async def test_all_are_asked_in_the_end():
    prefillers = some(5)
    assert set(in_order(prefillers, WISH)) == set(prefillers)


async def test_of_two_the_less_loaded_is_asked():
    one, two = some(2)
    with one.asked(WISH):
        assert all(in_order([one, two], WISH)[0] is two for _ in range(20))
    assert one.pending == 0


async def test_no_decoder_always_asks_the_same_one():
    prefillers = some(4)
    first = Counter(id(in_order(prefillers, WISH)[0]) for _ in range(200))
    assert len(first) == 4
    # The most loaded of all is never preferred, the less loaded of two random ones is.
    prefillers[0].pending = 10**6
    assert all(in_order(prefillers, WISH)[0] is not prefillers[0] for _ in range(50))


async def test_the_one_that_knows_the_prompts_beginning_is_asked_unless_it_is_too_busy():
    prefillers = some(6)
    with prefillers[3].asked(Wish(req_id="", tokens=list(range(90)))):
        pass
    assert all(in_order(prefillers, WISH)[0] is prefillers[3] for _ in range(20))
    prefillers[3].pending = 1000
    assert all(in_order(prefillers, WISH)[0] is not prefillers[3] for _ in range(20))
    salted = Wish(req_id="", tokens=WISH.tokens, salt="s")
    assert prefillers[3].lacking(salted) == 100


async def test_one_that_has_failed_is_asked_last_for_a_while(autojump_clock: MockClock):
    one, two = some(2)
    with pytest.raises(ValueError, match="boom"), one.asked(WISH):
        raise ValueError("boom")
    assert (one.pending, list(one.known)) == (0, [])
    one.note_failure()
    two.pending = 10**6
    assert in_order([one, two], WISH) == [two, one]
    autojump_clock.jump(SHUN_S)
    assert in_order([one, two], WISH) == [one, two]
