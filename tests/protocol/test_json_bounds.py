"""Values are counted before anything is parsed: at least as many as there are, and none within strings."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.protocol import json_bounds
from ark_trio.protocol.json_bounds import has_more_values

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a",[{\\\n:', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text('k",[{\\', max_size=3), inner)
    ),
    max_leaves=30,
)


def marks(value: object) -> int:
    """What is counted: the opening brackets and the commas of a value."""
    if not isinstance(value, (list, dict)):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(map(marks, inner))


@given(json_values)
def test_the_count_is_that_of_the_value_whatever_its_strings_say(value: object):
    text = b" " * 300 + orjson.dumps(value)
    exact = marks(value)
    assert not has_more_values(text, exact)
    assert exact == 0 or has_more_values(text, exact - 1)


@given(json_values, st.integers(1, 9))
def test_it_does_not_matter_where_pieces_end(value: object, size: int):
    text = b" " * 300 + orjson.dumps(value)
    exact = marks(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "_PIECE_BYTES", size)
        assert not has_more_values(text, exact)
        assert exact == 0 or has_more_values(text, exact - 1)


@given(st.binary(max_size=200), st.integers(0, 20))
def test_any_bytes_will_do(text: bytes, limit: int):
    has_more_values(text, limit)


@pytest.mark.parametrize(
    "text",
    [
        b"[],[],[],[],[],[],[],[],",
        b'"a",' * 8,
        b'"a",' * 12,
        b'{"a":{"a":{"a":{"a":{"a":{"a":{"a":{',
        b'["\\\\","\\\\","\\\\","\\\\","\\\\","\\\\"]',
    ],
)
def test_many_are_found_in_every_shape(text: bytes):
    assert has_more_values(text, 4)


def test_text_is_no_value():
    assert not has_more_values(orjson.dumps(['[{,",\\' * 100]), 1)
