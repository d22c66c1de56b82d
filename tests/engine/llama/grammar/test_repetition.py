"""Repetitions of what may be empty: the same texts in fewer ways."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.chars import CharSet
from ark_trio.engine.llama.grammar.expression import (
    Char,
    Choice,
    Expression,
    Repeat,
    Row,
    Text,
    choice,
    to_gbnf,
)
from ark_trio.engine.llama.grammar.pattern import parse_pattern
from ark_trio.engine.llama.grammar.repetition import repeat

TIMES = st.sampled_from([(0, 1), (0, None), (1, None), (0, 2), (2, 3)])
LEAVES = st.sampled_from([Text("a"), Text("bc"), Char(CharSet([(97, 99)]))])
ITEMS = st.recursive(
    LEAVES | st.builds(lambda leaf, times: Repeat(leaf, *times), LEAVES, TIMES),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: Row(tuple(items)))
        | st.lists(inner, min_size=1, max_size=3).map(choice)
        | st.builds(lambda item, times: Repeat(item, *times), inner, TIMES)
    ),
    max_leaves=5,
)


def as_pattern(item: Expression) -> str:
    """The same as a regular expression of Python's."""
    match item:
        case Text(text):
            return text
        case Char():
            return "[a-c]"
        case Row(items):
            return "(?:" + "".join(map(as_pattern, items)) + ")"
        case Choice(items):
            return "(?:" + "|".join(map(as_pattern, items)) + ")"
        case Repeat(inner, least, most):
            return f"(?:{as_pattern(inner)}){{{least},{'' if most is None else most}}}"
    raise AssertionError(item)


@settings(max_examples=300)
@given(ITEMS, TIMES, st.lists(st.text("abc", max_size=7), max_size=20))
def test_what_matches_stays_the_same(item: Expression, times, texts: list[str]):
    before, after = as_pattern(Repeat(item, *times)), as_pattern(repeat(item, *times))
    for text in ("", *texts):
        assert bool(re.fullmatch(before, text)) == bool(re.fullmatch(after, text)), (before, after)


@pytest.mark.parametrize(
    ("pattern", "grammar"),
    [
        ("(a?b?){0,30}", '(("a" "b"?)|"b"){0,30}'),
        ("(a*){2,}", '("a"+)*'),
        ("((a|b?)c*)?", '((("a"|"b") "c"*)|"c"+)?'),
        ("(ab?)*", '("a" "b"?)*'),
    ],
)
def test_no_way_is_left_that_adds_nothing(pattern: str, grammar: str):
    written = to_gbnf({"root": parse_pattern(pattern, lambda chars: Text(chr(chars.ranges[0][0])))})
    assert written.replace(" | ", "|") == f"root ::= {grammar}\n"


def test_what_would_grow_stays_as_it_is():
    pattern = "(" + "a?" * 300 + ")*"
    assert len(to_gbnf({"root": parse_pattern(pattern)})) < 10_000
