"""The faults of the gateway that this one replaces, one test each. Those of routing and transport are tested there."""

import orjson
import pytest

from ark_trio.errors import BadBackend
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.value import fill_value, from_value, to_value
from ark_wire import ark_pb2
from tests.support.answers import chunks, deltas, events

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"strict": True}}}


def inputs(*messages, **fields):
    body = {"model": "m", "messages": list(messages or [USER]), **fields}
    request = encode_chat(parse_chat(orjson.dumps(body)), req_id="r", model="m")
    return {key: from_value(value) for key, value in request.inputs.items()}


def response(outputs):
    made = ark_pb2.InferenceResponse()
    for key, value in outputs.items():
        fill_value(made.outputs[key], value)
    return made


def said(content, finish_reason=""):
    """A message as the engines of that gateway send it: everything always there, mostly empty."""
    message = {"role": "assistant", "content": content, "reasoning_content": "", "tool_calls": []}
    return {"choice": {"index": 0, "message": message, "finish_reason": finish_reason}}


USAGE = {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
ANSWER = [said("he") | USAGE, said("llo") | USAGE, said("", "stop") | USAGE]


def stream(*outputs, **options):
    encoder, decoder = (
        ChatStream(id="chatcmpl-1", created=1, model="m", **options),
        ResponseDecoder(),
    )
    return b"".join([encoder.feed(decoder.feed(response(o))) for o in outputs]) + encoder.end()


def fold(*outputs):
    answer, decoder = ChatFold(id="chatcmpl-1", created=1, model="m"), ResponseDecoder()
    for each in outputs:
        answer.feed(decoder.feed(response(each)))
    return answer.result()


def test_finish_reason_is_null_until_the_end():
    assert [end for *_, end in deltas(stream(*ANSWER))] == [None, None, None, "stop"]


def test_role_and_empty_fields_are_not_in_every_delta():
    assert [delta for _, delta, _ in deltas(stream(*ANSWER))] == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]


def test_usage_is_on_no_chunk_unasked():
    assert not any("usage" in chunk for chunk in chunks(stream(*ANSWER)))


def test_usage_is_not_on_the_finish_chunk_but_after_it():
    *before, last = chunks(stream(*ANSWER, include_usage=True))
    assert [chunk["usage"] for chunk in before] == [None] * 4
    assert before[-1]["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 7)


def test_a_first_message_without_usage_is_no_crash():
    assert fold(said("a"), said("", "stop") | USAGE)["usage"]["prompt_tokens"] == 5
    assert b"[DONE]" in stream(said("a"), said("", "stop"), include_usage=True)


def test_usage_has_openai_s_keys():
    usage = fold(*ANSWER)["usage"]
    assert usage == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_a_failure_in_mid_stream_has_openai_s_shape_and_done():
    encoder = ChatStream(id="chatcmpl-1", created=1, model="m")
    error, done = events(encoder.fail(BadBackend("It broke.")))
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert done == "[DONE]"


def test_an_assistant_turn_with_null_content_is_no_crash():
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert inputs(USER, turn)["messages"][1] == turn


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ({"role": "assistant", "content": "", "tool_calls": [CALL]}, "tool_calls"),
        ({"role": "tool", "content": "42", "tool_call_id": "c1"}, "tool_call_id"),
        ({"role": "user", "content": "hi", "name": "zoe"}, "name"),
        ({"role": "assistant", "content": "hi", "reasoning_content": "hm"}, "reasoning_content"),
    ],
)
def test_no_field_of_a_message_is_dropped(message, key):
    assert inputs(message)["messages"][0][key] == message[key]


def test_a_message_of_several_parts_stays_one_message():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    got = inputs({"role": "user", "content": parts})
    assert len(got["messages"]) == len(got["messages.role"]) == len(got["messages.content"]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool_choice", "required"),
        ("seed", 7),
        ("top_k", 40),
        ("repetition_penalty", 1.1),
    ],
)
def test_no_accepted_parameter_is_ignored(field, value):
    assert inputs(**{field: value}, tools=[TOOL])[field] == value


def test_tool_call_increments_are_merged_not_listed():
    increments = [
        ToolCallDelta(index=0, id="c1", name="f", arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
    ]
    steps = [Step(choices=(ChoiceDelta(tool_calls=(call,)),)) for call in increments]
    answer = ChatFold(id="chatcmpl-1", created=1, model="m")
    for step in [*steps, Step(choices=(ChoiceDelta(finish_reason="tool_calls"),))]:
        answer.feed(step)
    assert answer.result()["choices"][0]["message"]["tool_calls"] == [CALL]


def test_log_probabilities_that_were_asked_for_are_returned():
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    step = Step(choices=(ChoiceDelta(content="a", logprobs=(entry,), finish_reason="stop"),))
    (message,) = encode_step(step, req_id="r", model="m")
    outputs = {key: from_value(value) for key, value in message.outputs.items()}
    said = {"content": [entry], "refusal": None}
    assert fold(outputs)["choices"][0]["logprobs"] == said
    assert chunks(stream(outputs))[1]["choices"][0]["logprobs"] == said


def test_a_bool_is_no_integer():
    assert to_value(True).WhichOneof("kind") == "bool_"
    assert inputs(tools=[TOOL])["tools"][0]["function"]["parameters"]["strict"] is True


def test_a_fractional_logit_bias_is_carried():
    assert inputs(logit_bias={"5": -0.5})["logit_bias"] == {5: -0.5}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_completion_tokens", 5),
        ("user", "u"),
        ("parallel_tool_calls", False),
        ("reasoning_effort", "low"),
    ],
)
def test_no_common_parameter_is_refused(field, value):
    assert inputs(**{field: value})


def test_the_engine_s_totals_are_read_and_never_made_up():
    assert ResponseDecoder().feed(response(USAGE)).usage == Usage(
        prompt_tokens=5, completion_tokens=2
    )
    assert ResponseDecoder().feed(response(said("a"))).usage is None
