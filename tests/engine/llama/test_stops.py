"""Stop texts: cut wherever tokens cut them, never said in part, and nothing lost."""

from hypothesis import given
from hypothesis import strategies as st

from ark_trio.engine.llama.stops import StopFilter

LETTERS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def say(
    stops: list[str], pieces: list[str], *, include: bool = False
) -> tuple[list[str], StopFilter]:
    """What is said after each piece, and at the end."""
    reader = StopFilter(tuple(stops), include)
    said = [reader.feed(piece).text for piece in pieces]
    return [*said, reader.end().text], reader


def expected(stops: list[str], text: str, *, include: bool) -> tuple[str, bool]:
    """The text up to the stop that is complete first, by brute force."""
    for end in range(len(text) + 1):
        for begin in range(end):
            if text[begin:end] in stops:
                return text[: end if include else begin], True
    return text, False


@given(STOPS, st.lists(st.text("ab", min_size=1, max_size=1), max_size=14), st.booleans())
def test_token_by_token_the_text_ends_where_the_first_stop_is_complete(
    stops: list[str], pieces: list[str], include: bool
):
    said, reader = say(stops, pieces, include=include)
    # Of two that end together the one that begins first counts.
    assert ("".join(said), reader.stopped) == expected(stops, "".join(pieces), include=include)


@given(STOPS, st.lists(LETTERS, max_size=6))
def test_however_it_is_cut_no_part_of_a_stop_is_said(stops: list[str], pieces: list[str]):
    said, reader = say(stops, pieces)
    whole, text = "".join(said), "".join(pieces)
    assert text.startswith(whole)
    assert not any(stop in whole for stop in stops)
    if not reader.stopped:
        assert whole == text
    else:
        assert any(text[len(whole) :].startswith(stop) for stop in stops)


def test_what_is_no_stop_after_all_is_said_at_once():
    said, _ = say(["abc"], ["xa", "b", "bc"])
    assert said == ["x", "", "abbc", ""]


def test_what_is_held_is_said_at_the_end():
    said, _ = say(["abc"], ["xa", "b"])
    assert said == ["x", "", "ab"]


def test_after_a_stop_nothing_is_said():
    reader = StopFilter(("b",))
    assert reader.feed("abc").text == "a"
    assert reader.feed("more", ({"token": "more"},)).entries == ()
    assert reader.end().text == ""


def entry(token: str) -> dict[str, str]:
    return {"token": token}


def test_entries_come_with_their_text():
    reader = StopFilter(("abc",))
    assert reader.feed("xa", (entry("xa"),)).entries == (entry("xa"),)
    assert reader.feed("b", (entry("b"),)).entries == ()
    released = reader.feed("y", (entry("y"),))
    assert released.text == "aby"
    assert released.entries == (entry("b"), entry("y"))


def test_entries_of_what_is_stopped_are_dropped():
    reader = StopFilter(("bc",))
    reader.feed("ab", (entry("ab"),))
    assert reader.feed("c", (entry("c"),)).entries == ()
    assert reader.end().entries == ()
