from collections import defaultdict
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.errors import BadBackend
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from tests.protocol.test_chat_stream import step
from tests.support.answers import chunks
from tests.support.strategies import STEPS

WHO: Any = {"id": "chatcmpl-1", "created": 7, "model": "m"}


def fold(*steps, n=1):
    answer = ChatFold(**WHO, n=n)
    for one in steps:
        answer.feed(one)
    return answer.result()


def message(*steps):
    (choice,) = fold(*steps, step(finish_reason="stop"))["choices"]
    return choice["message"]


def test_the_whole_answer():
    usage = Usage(prompt_tokens=5, completion_tokens=2, reasoning_tokens=1, cached_tokens=4)
    assert fold(step("he"), step("llo", finish_reason="length"), Step(usage=usage)) == {
        **WHO,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 4},
            "prompt_cache_hit_tokens": 4,
            "prompt_cache_miss_tokens": 1,
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_usage_that_the_engine_never_told_is_null():
    assert fold(step("a", finish_reason="stop"))["usage"] is None


def test_tool_calls_are_merged_by_index():
    calls = (
        ToolCallDelta(index=1, id="b", name="g", arguments="["),
        ToolCallDelta(index=0, id="a", name="f", arguments="{"),
        ToolCallDelta(index=1, arguments="]"),
        ToolCallDelta(index=0, arguments="}"),
    )
    answer = fold(*(step(tool_calls=(call,)) for call in calls), step(finish_reason="stop"))
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "[]"}},
        ],
    }


def test_content_beside_tool_calls_stays():
    call = ToolCallDelta(index=0, id="a", name="f")
    assert message(step("let me see", tool_calls=(call,)))["content"] == "let me see"


def test_an_empty_answer_has_empty_content():
    assert message() == {"role": "assistant", "content": "", "refusal": None}


def test_reasoning_goes_by_both_names():
    got = message(step(reasoning="h"), step(reasoning="m"), step("x"))
    assert (got["reasoning_content"], got["reasoning"], got["content"]) == ("hm", "hm", "x")


def test_log_probabilities_are_collected():
    a, b = {"token": "a"}, {"token": "b"}
    answer = fold(step("a", logprobs=(a,)), step("b", logprobs=(b,), finish_reason="stop"))
    assert answer["choices"][0]["logprobs"] == {"content": [a, b], "refusal": None}


def test_choices_interleave():
    answer = fold(
        step("a", 1),
        step("b", 0),
        step("c", 1, finish_reason="stop"),
        step("d", 0, finish_reason="length"),
        step(index=0, finish_reason="length"),
        n=2,
    )
    assert [
        (choice["index"], choice["message"]["content"], choice["finish_reason"])
        for choice in answer["choices"]
    ] == [(0, "bd", "length"), (1, "ac", "stop")]


def test_an_answer_without_every_end_is_the_engine_s_fault():
    with pytest.raises(BadBackend):
        fold(step("a", finish_reason="stop"), n=2)


@pytest.mark.parametrize("index", [-1, 1])
def test_a_choice_that_nobody_asked_for_is_the_engine_s_fault(index):
    with pytest.raises(BadBackend):
        fold(step("a", index))


def refold(body, n):
    """The message and end of each choice, as a client puts a stream together."""
    said: Any = [defaultdict(str) for _ in range(n)]
    calls: Any = [{} for _ in range(n)]
    ends: Any = [None] * n
    tokens: Any = [[] for _ in range(n)]
    for chunk in chunks(body):
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            for name in {"content", "reasoning", "reasoning_content"} & delta.keys():
                said[index][name] += delta[name]
            for call in delta.get("tool_calls", ()):
                known = calls[index].setdefault(call["index"], call)
                if known is not call:
                    known["function"]["arguments"] += call["function"]["arguments"]
            tokens[index] += (choice["logprobs"] or {}).get("content", ())
            ends[index] = choice["finish_reason"] or ends[index]
    return [
        (dict(said[i]), [calls[i][k] for k in sorted(calls[i])], ends[i], tokens[i])
        for i in range(n)
    ]


def as_streamed(choice):
    said = choice["message"]
    text = {k: said[k] or "" for k in ("content", "reasoning", "reasoning_content") if k in said}
    calls = said.get("tool_calls", [])
    return text, calls, choice["finish_reason"], (choice["logprobs"] or {}).get("content", [])


ENDS = Step(choices=tuple(ChoiceDelta(index=i, finish_reason="stop") for i in range(6)))


OPENED = step(tool_calls=(ToolCallDelta(index=0, name="f"),))
TOKEN = {"token": "", "logprob": 0.0, "bytes": None, "top_logprobs": []}
SILENT = step(tool_calls=(ToolCallDelta(index=0),), logprobs=(TOKEN,))


@given(st.lists(STEPS, max_size=4))
@example([OPENED, SILENT])
def test_a_stream_says_what_the_folded_answer_says(steps):
    fold, stream = ChatFold(**WHO, n=6), ChatStream(**WHO, n=6, include_usage=True)
    body = b""
    faults: list[str] = []
    for one in [*steps, ENDS]:
        outcome: Any = []
        for take in (fold.feed, stream.feed):
            try:
                outcome.append(take(one))
            except BadBackend as error:
                faults.append(error.message)
        if faults:
            assert len(faults) == 2
            assert faults[0] == faults[1]
            return
        body += outcome[1]
    result = orjson.loads(orjson.dumps(fold.result()))
    body += stream.end()
    streamed = refold(body, 6)
    for (said, calls, end, tokens), choice in zip(streamed, result["choices"], strict=True):
        for call in calls:
            del call["index"]
        assert (said, calls, end, tokens) == as_streamed(choice)
    assert chunks(body)[-1]["usage"] == result["usage"]
