"""llama.cpp's chunks as steps."""

from typing import Any

import pytest

from ark_trio.engine.llama.reader import ChoiceReader
from ark_trio.engine.llama.stops import StopFilter
from ark_trio.errors import InternalError
from ark_trio.protocol.step import Step
from ark_trio.protocol.tool_text import ToolText


def reader(*stops: str, include: bool = False, **more: Any) -> ChoiceReader:
    return ChoiceReader(
        index=0,
        prompt_tokens=5,
        cached_tokens=2,
        said_before=10,
        stops=StopFilter(stops, include),
        new_call_id=lambda: "call_1",
        **more,
    )


def chunk(content: str, number: int, *tokens: int, **more: Any) -> dict[str, Any]:
    return {"content": content, "tokens": tokens, "timings": {"predicted_n": number}, **more}


def text_of(*steps: Step | None) -> str:
    return "".join(step.choices[0].content for step in steps if step is not None)


def test_an_answer_that_breaks_off_is_an_error():
    read = reader()
    read.feed_completion(chunk("a", 1))
    with pytest.raises(InternalError):
        read.end()


@pytest.mark.parametrize(
    ("kind", "reason"), [("eos", "stop"), ("limit", "length"), ("word", "stop")]
)
def test_the_end_has_its_reason_and_the_totals(kind: str, reason: str):
    read = reader()
    read.feed_completion(chunk("a", 1))
    assert read.feed_completion(chunk("", 2, stop=True, stop_type=kind)) is None
    end = read.end()
    assert end.choices[0].finish_reason == reason
    assert end.usage is not None
    assert (end.usage.completion_tokens, end.usage.cached_tokens) == (12, 2)


def test_a_stop_text_ends_it_whatever_llama_cpp_goes_on_to_say():
    read = reader("b")
    said = text_of(read.feed_completion(chunk("ab", 1)))
    assert (said, read.done) == ("a", True)
    end = read.end()
    assert end.choices[0].finish_reason == "stop"
    assert end.usage is not None
    assert end.usage.completion_tokens == 11


@pytest.mark.parametrize(("include", "text"), [(False, "a"), (True, "ab")])
def test_a_stop_token_ends_it(include: bool, text: str):
    read = reader(include=include, stop_tokens=frozenset({7}))
    said = text_of(read.feed_completion(chunk("a", 1, 5)), read.feed_completion(chunk("b", 2, 7)))
    assert (said, read.done) == (text, True)


def test_text_held_for_a_stop_is_not_lost_at_the_length():
    read = reader("abc")
    first = read.feed_completion(chunk("ab", 1))
    read.feed_completion(chunk("", 1, stop=True, stop_type="limit"))
    assert text_of(first, read.end()) == "ab"


def test_calls_in_the_text_are_calls_with_ids():
    read = reader(tool_text=ToolText(["hermes"], ["f"]))
    text = 'So:\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    steps = [read.feed_completion(chunk(char, at)) for at, char in enumerate(text)]
    read.feed_completion(chunk("", 90, stop=True, stop_type="eos"))
    end = read.end()
    calls = [call for step in [*steps, end] if step for call in step.choices[0].tool_calls]
    assert (calls[0].id, calls[0].name) == ("call_1", "f")
    assert "".join(call.arguments for call in calls) == '{"a": 1}'
    assert text_of(*steps, end).strip() == "So:"
    assert end.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("said", ["<", "<tool_c", '<tool_call>\n{"na', '<tool_call>\n{"name": "f'])
def test_a_call_that_the_length_cuts_off_leaves_no_markup(said: str):
    read = reader(tool_text=ToolText(["hermes"], ["f"]))
    steps = [read.feed_completion(chunk(char, at)) for at, char in enumerate(said)]
    steps.append(read.feed_completion(chunk("", 90, stop=True, stop_type="limit")))
    end = read.end()
    assert text_of(*steps, end) == ""
    assert end.choices[0].finish_reason == "length"


def test_reasoning_is_told_apart_and_counted():
    read = reader()
    delta = {"choices": [{"delta": {"reasoning_content": "hm"}}], "timings": {"predicted_n": 4}}
    first = read.feed_chat(delta)
    assert first is not None
    assert first.choices[0].reasoning == "hm"
    last = read.feed_chat(
        {
            "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}],
            "timings": {"predicted_n": 6},
        }
    )
    assert text_of(last) == "x"
    usage = read.end().usage
    assert usage is not None
    assert (usage.reasoning_tokens, usage.completion_tokens) == (4, 16)


def test_tokens_said_beforehand_count():
    read = reader("a")
    assert text_of(read.feed_first("aa", 3)) == "aa"  # no stop applies
    assert read.feed_first("", 1) is None
    assert read.completion_tokens == 14
