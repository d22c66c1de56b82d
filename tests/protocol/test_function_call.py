"""OpenAI's calls of 2023: asked as tools, answered in the old words."""

from typing import Any

import orjson
import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta
from ark_trio.protocol.value import from_value

FUNCTION = {"name": "look_up", "description": "d", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
USER = {"role": "user", "content": "hi"}
WHO: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "m"}


def parse(*messages: Any, **fields: Any):
    return parse_chat(orjson.dumps({"model": "m", "messages": messages or [USER], **fields}))


def inputs(*messages: Any, **fields: Any) -> dict[str, Any]:
    request = encode_chat(parse(*messages, **fields), req_id="r", model="m")
    return {key: from_value(value) for key, value in request.inputs.items()}


def test_engines_get_tools_of_which_one_is_called():
    got = inputs(functions=[FUNCTION], function_call={"name": "look_up"})
    assert got["tools"] == [TOOL]
    assert got["tool_choice"] == {"type": "function", "function": {"name": "look_up"}}
    assert got["parallel_tool_calls"] is False
    assert not got.keys() & {"functions", "function_call"}


def test_what_may_be_called_is_known_to_who_reads_the_answer():
    assert parse(functions=[FUNCTION]).reading.tool_names == {"look_up"}
    assert parse(functions=[FUNCTION], function_call="none").reading.tool_names == set()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": []}, "functions"),
        ({"functions": [{"parameters": {}}]}, "functions[0].name"),
        ({"functions": FUNCTION}, "functions"),
        ({"functions": [FUNCTION], "tools": [TOOL]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [FUNCTION], "function_call": "required"}, "function_call"),
        ({"functions": [FUNCTION], "function_call": {"name": "other"}}, "function_call"),
        ({"functions": [FUNCTION], "function_call": {}}, "function_call.name"),
        ({"functions": [FUNCTION], "tool_choice": "auto"}, "tool_choice"),
    ],
)
def test_what_cant_be_asked_is_refused_by_name(fields: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as refusal:
        parse(**fields)
    assert refusal.value.param == param


def test_calls_and_results_of_earlier_turns_are_told_engines_as_tools():
    call = {"name": "look_up", "arguments": "{}"}
    turns = [
        USER,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "content": "42", "name": "look_up"},
        {"role": "assistant", "content": "And again:", "function_call": call},
        {"role": "function", "content": None, "name": "look_up"},
    ]
    first, second = (
        [{"id": made, "type": "function", "function": call}] for made in ("call_1", "call_3")
    )
    assert inputs(*turns)["messages"] == [
        USER,
        {"role": "assistant", "content": None, "tool_calls": first},
        {"role": "tool", "content": "42", "name": "look_up", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "And again:", "tool_calls": second},
        {"role": "tool", "content": "", "name": "look_up", "tool_call_id": "call_3"},
    ]


def test_a_result_that_nobody_asked_for_has_no_call():
    turn = {"role": "function", "content": "42", "name": "f"}
    assert inputs(USER, turn)["messages"][1] == {"role": "tool", "content": "42", "name": "f"}


def called(index: int, name: str | None = None, arguments: str = "") -> Step:
    call = ToolCallDelta(index=index, name=name, arguments=arguments)
    return Step(choices=(ChoiceDelta(index=0, tool_calls=(call,)),))


STEPS = [
    called(0, "look_up"),
    called(0, arguments='{"a"'),
    called(1, "another", "{}"),
    called(0, arguments=":1}"),
    Step(choices=(ChoiceDelta(index=0, finish_reason="stop"),)),
]


def test_the_answer_has_one_call_in_the_old_words():
    fold = ChatFold(**WHO, functions=True)
    for step in STEPS:
        fold.feed(step)
    (choice,) = fold.result()["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "look_up", "arguments": '{"a":1}'},
    }


def test_a_stream_has_one_call_in_the_old_words():
    stream = ChatStream(**WHO, functions=True)
    frames = b"".join(map(stream.feed, STEPS)).split(b"\n\n")[:-1]
    choices = [orjson.loads(frame.removeprefix(b"data: "))["choices"][0] for frame in frames]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"function_call": {"name": "look_up", "arguments": ""}},
        {"function_call": {"arguments": '{"a"'}},
        {"function_call": {"arguments": ":1}"}},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["function_call"]


def test_without_a_call_it_is_an_answer_like_any_other():
    fold, stream = ChatFold(**WHO, functions=True), ChatStream(**WHO, functions=True)
    step = Step(choices=(ChoiceDelta(index=0, content="No.", finish_reason="stop"),))
    fold.feed(step)
    (choice,) = fold.result()["choices"]
    assert choice["finish_reason"] == "stop"
    assert "function_call" not in choice["message"]
    assert b'"finish_reason":"stop"' in stream.feed(step)
