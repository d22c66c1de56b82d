"""What binds the turns of a conversation together, and about how long it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.protocol.message import FunctionCall, ImagePart, ImageUrl, Message, TextPart, ToolCall
from ark_trio.protocol.prefix import (
    MIN_CHARS,
    conversation_key,
    conversation_tokens,
    prompt_key,
    prompt_tokens,
)


def turns(*texts: str, system: str = "") -> list[Message]:
    """A conversation of user and assistant in turn."""
    said = [
        Message(role="assistant" if number % 2 else "user", content=text)
        for number, text in enumerate(texts)
    ]
    return [Message(role="system", content=system), *said] if system else said


LONG = "x" * MIN_CHARS


@given(st.lists(st.text(max_size=400), min_size=1, max_size=6), st.text(max_size=400))
def test_a_key_that_a_conversation_has_stays_as_it_grows(texts: list[str], system: str):
    keys = [
        conversation_key(turns(*texts[:count], system=system)) for count in range(1, len(texts) + 1)
    ]
    had = [key for key in keys if key is not None]
    assert len(set(had)) <= 1
    assert keys[len(keys) - len(had) :] == had


def test_short_conversations_have_none():
    assert conversation_key(turns("hi")) is None
    assert conversation_key(turns("hi", "hello", "how are you?")) is None


def test_conversations_under_one_system_prompt_are_told_apart_by_their_first_question():
    one, other = turns("a", system=LONG), turns("b", system=LONG)
    assert None is not conversation_key(one) != conversation_key(other)


def test_one_that_began_with_a_short_question_is_known_by_its_first_characters():
    assert conversation_key(turns("hi", LONG)) == conversation_key(turns("hi", LONG, "more"))
    assert conversation_key(turns("hi", LONG)) != conversation_key(turns("ho", LONG))


def test_long_texts_that_differ_at_their_ends_are_told_apart():
    middle = "m" * 100_000
    keys = {conversation_key(turns(f"{a}{middle}{b}")) for a in "12" for b in "34"}
    assert len(keys) == 4


def test_images_and_calls_count():
    def with_image(url: str) -> list[Message]:
        parts = (TextPart(text=LONG), ImagePart(image_url=ImageUrl(url=url)))
        return [Message(role="user", content=parts)]

    assert conversation_key(with_image("a")) != conversation_key(with_image("b"))
    assert conversation_tokens(with_image("a")) > 1000
    call = ToolCall(id="1", function=FunctionCall(name="f", arguments="1" * 400))
    assert conversation_tokens([Message(role="assistant", tool_calls=(call,))]) == 104
    both = Message(role="assistant", content="x" * 40, tool_calls=(call,))
    assert conversation_tokens([both]) == 114


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (LONG + "a", LONG + "b", True),
        ("a" + LONG, "b" + LONG, False),
        (tuple(range(64)), (*range(64), 1), True),
        (tuple(range(64)), tuple(range(1, 65)), False),
    ],
)
def test_prompts_are_bound_by_how_they_begin(one, other, same: bool):
    assert prompt_key(one) is not None
    assert (prompt_key(one) == prompt_key(other)) is same


def test_short_prompts_have_no_key():
    assert prompt_key("short") is None
    assert prompt_key((1, 2, 3)) is None


def test_a_text_with_a_lone_surrogate_has_a_key():
    assert prompt_key("\ud800" * MIN_CHARS) is not None


def test_lengths_are_about_right():
    assert conversation_tokens(turns("x" * 400, "y" * 80)) == 128
    assert (prompt_tokens("x" * 40), prompt_tokens((1, 2, 3))) == (10, 3)
