"""Numbers between bounds: none beyond them, and all integers within them."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.expression import Char, Choice, Expression, Row, Text
from ark_trio.engine.llama.grammar.number import TooPrecise, integer_between, number_between
from tests.support.grammar import draw_text

BOUNDS = st.decimals(-2000, 2000, places=2)


def matches(item: Expression, text: str) -> set[int]:
    """Where matches of `item` at the begin of `text` can end. For integers' grammars only."""
    match item:
        case Text(said):
            return {len(said)} if text.startswith(said) else set()
        case Char(allowed):
            return {1} if text and text[0] in allowed else set()
        case Choice(items):
            return set().union(*(matches(each, text) for each in items))
        case Row(items):
            ends = {0}
            for each in items:
                ends = {end + more for end in ends for more in matches(each, text[end:])}
            return ends
        case _:
            raise AssertionError(item)


@given(st.integers(-1500, 1500), st.integers(0, 1200), st.integers(-3000, 3000))
def test_exactly_the_integers_between(low: int, width: int, number: int):
    grammar = integer_between(Decimal(low), Decimal(low + width))
    text = str(number)
    assert (len(text) in matches(grammar, text)) == (low <= number <= low + width)


@settings(max_examples=60)
@given(st.data(), BOUNDS, st.decimals(0, 500, places=3))
def test_numbers_stay_between(data: st.DataObject, low: Decimal, width: Decimal):
    text = draw_text(data, {"root": number_between(low, low + width)})
    assert low <= Decimal(text) <= low + width
    assert not text.lstrip("-").startswith(("00", "01"))


@settings(max_examples=60)
@given(st.data(), st.integers(-(10**6), 10**6))
def test_one_bound_is_enough(data: st.DataObject, bound: int):
    above = draw_text(data, {"root": integer_between(Decimal(bound), None)})
    below = draw_text(data, {"root": integer_between(None, Decimal(bound))})
    assert int(below) <= bound <= int(above)


def test_bounds_beyond_reason_are_not_held_to():
    with pytest.raises(TooPrecise):
        number_between(Decimal("0.1234567890123"), None)
