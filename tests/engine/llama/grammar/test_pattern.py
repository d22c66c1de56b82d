"""Regular expressions: every text that the grammar allows is one that Python's `re` matches."""

import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.json_text import in_string
from ark_trio.engine.llama.grammar.pattern import parse_pattern
from ark_trio.engine.llama.grammar.writer import Unsupported
from tests.support.grammar import draw_text

ATOMS = st.sampled_from(
    [
        *"abZ09 ,-]}\"'<é世",
        *(r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", ".", r"\.", r"\n", r"\\", r"\x41", r"\u00e9"),
        *("[abc]", "[^a]", "[a-f0-9]", r"[^\d\s]", r"[\]\-x]", "[]a]", "[a-]", r"[\w.]", '["\\\\]'),
    ]
)
TIMES = st.sampled_from(["", "", "*", "+", "?", "*?", "{2}", "{0}", "{1,3}", "{2,}", "{0,2}?"])
PATTERNS = st.recursive(
    st.builds(str.__add__, ATOMS, TIMES),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4).map("".join)
        | st.builds("({}){}".format, inner, TIMES)
        | st.builds("(?:{}|{}){}".format, inner, inner, TIMES)
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.data(), PATTERNS)
def test_what_the_grammar_allows_matches(data: st.DataObject, pattern: str):
    text = draw_text(data, {"root": parse_pattern(pattern)})
    assert re.fullmatch(pattern, text, re.ASCII), (pattern, text)


@settings(max_examples=60)
@given(st.data(), PATTERNS)
def test_within_a_string_it_is_escaped_and_matches(data: st.DataObject, pattern: str):
    rules = {"root": parse_pattern(pattern, in_string)}
    text = draw_text(data, rules)
    value = orjson.loads(f'"{text}"')
    assert re.fullmatch(pattern, value, re.ASCII), (pattern, value)


@settings(max_examples=60)
@given(st.data(), PATTERNS, st.booleans(), st.booleans())
def test_unanchored_it_need_only_be_found(
    data: st.DataObject, pattern: str, begins: bool, ends: bool
):
    anchored = "^" * begins + pattern + "$" * ends
    text = draw_text(data, {"root": parse_pattern(anchored, whole=False)})
    assert re.search(anchored.replace("$", r"\Z"), text, re.ASCII), (anchored, text)


@settings(max_examples=60)
@given(st.data())
def test_groups_may_have_names(data: st.DataObject):
    for pattern in (r"(?P<year>\d{4})-(?P<month>\d\d)", r"(?<year>\d{4})-(?<month>\d\d)"):
        text = draw_text(data, {"root": parse_pattern(pattern)})
        assert re.fullmatch(r"\d{4}-\d\d", text, re.ASCII)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(?=a)", "groups"),
        (r"(?<!a)b", "groups"),
        (r"(?i)a", "groups"),
        (r"(a)\1", "not understood"),
        (r"\bword", "not understood"),
        (r"\p{L}", "not understood"),
        ("(a", "not closed"),
        ("a)", "not opened"),
        ("[a", "too early"),
        ("[b-a]", "no range"),
        (r"[^\d\D]", "empty"),
        ("*a", "means nothing"),
        ("a**", "nothing to repeat"),
        ("a{3,2}", "reversed"),
        ("a{2001}", "2000"),
        ("a{,3}", "write"),
        ("(^a)", "outside"),
        ("a^b", "means nothing"),
        ("a$b", "follows"),
        (r"\x4", "hexadecimal"),
        ("a\\", "too early"),
        ("(" * 60 + ")" * 60, "deeply"),
        ("a" * 5000, "longer"),
    ],
)
def test_what_no_grammar_can_say_is_refused_saying_what(pattern: str, why: str):
    with pytest.raises(Unsupported, match=why):
        parse_pattern(pattern)
