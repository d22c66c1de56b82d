"""A text cut into pieces, in any way: what streaming does to it."""

from hypothesis import strategies as st


def cut(text, places):
    """The pieces of `text` between `places`, each taken modulo the text's length."""
    ends = sorted({place % (len(text) + 1) for place in places} | {len(text)})
    starts = [0, *ends[:-1]]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=30)
