import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.protocol.reasoning_text import ReasoningText
from tests.support.cuts import PLACES, cut


def split(*pieces, opened=False):
    """Reasoning and answer of a text that comes in `pieces`."""
    splitter = ReasoningText(opened=opened)
    said = [*map(splitter.feed, pieces), splitter.end()]
    return tuple("".join(part) for part in zip(*said, strict=True))


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\nhm, so\n</think>\n\nYes.", "hm, so", "Yes."),
        ("<think>hm</think>Yes.", "hm", "Yes."),
        ("\n <think> hm  </think>\n", "hm", ""),
        ("<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("<think>never ended", "never ended", ""),
        ("<think>ended badly</thi", "ended badly</thi", ""),
        ("<think>a < b </ c</think>d", "a < b </ c", "d"),
        ("Yes, <think>no</think>", "", "Yes, <think>no</think>"),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("<thinking>x", "", "<thinking>x"),
        ("<thin", "", "<thin"),
        ("  \n plain ", "", "  \n plain "),
        ("hm</think>Yes.", "", "hm</think>Yes."),
        ("", "", ""),
        (" ", "", " "),
    ],
)
def test_what_is_reasoning_and_what_is_answer(text, reasoning, answer):
    assert split(text) == (reasoning, answer)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("hm, so\n</think>\n\nYes.", "hm, so", "Yes."),
        ("\n hm</think>Yes.", "hm", "Yes."),
        ("<think>\nhm</think>Yes.", "hm", "Yes."),
        ("</think>Yes.", "", "Yes."),
        ("cut off", "cut off", ""),
        ("<th", "", "<th"),
    ],
)
def test_a_template_may_have_opened_the_reasoning(text, reasoning, answer):
    assert split(text, opened=True) == (reasoning, answer)


PIECES = st.sampled_from(
    ["<think>", "</think>", "<", "/", "think", ">", " ", "\n", "a", "é", "b c"]
)


@given(st.lists(PIECES, max_size=12).map("".join), PLACES, st.booleans())
def test_the_same_however_the_text_is_cut(text, places, opened):
    assert split(*cut(text, places), opened=opened) == split(text, opened=opened)


def test_thoughts_are_passed_on_as_they_come():
    splitter = ReasoningText()
    assert [splitter.feed(piece) for piece in ("<think>", "one ", "two", "</think>", "x")] == [
        ("", ""),
        ("one", ""),
        (" two", ""),
        ("", ""),
        ("", "x"),
    ]
    assert splitter.settled
