"""Sets of characters against Python's own sets."""

from hypothesis import given
from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.chars import ANY, CharSet, chars

SETS = st.sets(st.characters(max_codepoint=300), max_size=8)


@given(SETS, SETS, st.characters(max_codepoint=310))
def test_sets_behave_as_sets_do(one: set[str], other: set[str], char: str):
    a, b = chars("".join(one)), chars("".join(other))
    assert (char in a) == (char in one)
    assert (char in a | b) == (char in one | other)
    assert (char in a - b) == (char in one - other)
    assert (char in ~a) == (char not in one)


def test_no_set_has_surrogates():
    assert all(high < 0xD800 or low > 0xDFFF for low, high in (~CharSet([])).ranges)
    assert "\U0010ffff" in ANY
