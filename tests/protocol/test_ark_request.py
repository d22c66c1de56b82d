import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import InvalidRequest
from ark_trio.protocol import ark_request
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.value import from_value
from ark_wire import inference

USER = {"role": "user", "content": "grüße"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def encode(*messages, **fields):
    body = {"model": "alias", "messages": list(messages or [USER]), **fields}
    return encode_chat(parse_chat(orjson.dumps(body)), req_id="r1", model="m")


def inputs(*messages, **fields):
    return {k: from_value(v) for k, v in encode(*messages, **fields).inputs.items()}


def test_plain_text_goes_as_flat_lists_only():
    request = encode({"role": "system", "content": "be brief"}, USER)
    assert (request.req_id, request.model_name, request.method) == ("r1", "m", "")
    assert set(request.inputs) == {"messages.role", "messages.content"}
    assert list(request.inputs["messages.role"].bytes_list.values) == [b"system", b"user"]
    assert list(request.inputs["messages.content"].bytes_list.values) == [
        b"be brief",
        "grüße".encode(),
    ]


turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=4)},
    optional={
        "name": st.text(max_size=2),
        "tool_call_id": st.sampled_from(["", "c1"]),
        "reasoning_content": st.text(max_size=1),
        "reasoning": st.text(max_size=1),
        "refusal": st.text(max_size=1),
        "tool_calls": st.sampled_from([[], [CALL]]),
        "function_call": st.just(CALL["function"]),
    },
)
plain_turns = st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=4)})


@given(st.lists(turns | plain_turns, min_size=1, max_size=3))
def test_conversations_of_text_alone_are_spelled_as_any_other(messages):
    short = encode(*messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ark_request, "_is_text_alone", lambda _: False)
        assert encode(*messages) == short


def test_names_go_beside_the_flat_lists_and_nested():
    got = inputs({**USER, "name": "Zoë"}, USER)
    assert got["messages.name"] == ["Zoë".encode(), b""]
    assert got["messages"] == [{**USER, "name": "Zoë"}, USER]


def test_an_image_goes_nested_only():
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:,x", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "data:,y"}},
    ]
    got = inputs({"role": "user", "content": parts})
    assert got == {"messages": [{"role": "user", "content": parts}]}


def test_text_parts_go_nested_and_joined_for_flat_readers():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    got = inputs({"role": "user", "content": parts})
    assert got["messages"] == [{"role": "user", "content": parts}]
    assert got["messages.content"] == [b"a\nb"]


def test_a_tool_turn_is_carried_whole():
    turns = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    got = inputs(*turns)
    assert got["messages"] == turns
    assert got["messages.content"] == ["grüße".encode(), b"", b"42"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_carried_by_either_name(field):
    got = inputs(USER, {"role": "assistant", "content": "x", field: "hm"}, USER)
    assert got["messages"][1] == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


def test_refusals_are_carried():
    turns = [USER, {"role": "assistant", "content": None, "refusal": "no"}]
    assert inputs(*turns)["messages"] == turns


@pytest.mark.parametrize(
    ("fields", "alternatives"),
    [
        ({"logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 5}, 5),
        ({"logprobs": True, "top_logprobs": 0}, 1),
        ({"logprobs": False}, None),
    ],
)
def test_logprobs_is_the_number_of_alternatives(fields, alternatives):
    assert inputs(**fields).get("logprobs") == alternatives


def test_values_arrive_as_they_were_written():
    got = inputs(temperature=0.7, stop=["a", "b"], logit_bias={"5": 0.1}, seed=2**63 - 1)
    assert got["temperature"] == 0.7
    assert got["stop"] == ["a", "b"]
    assert got["logit_bias"] == {5: 0.1}
    assert got["seed"] == 2**63 - 1


def test_tools_arrive_as_they_stand():
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "strict": True,
            "parameters": {"type": "object", "enum": [1, 2], "minimum": 0.1, "x": [None, {}, []]},
        },
        "vendor": 1,
    }
    choice = {"type": "function", "function": {"name": "f"}}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}}, "b": 2}
    got = inputs(tools=[tool], tool_choice=choice, response_format=schema)
    assert (got["tools"], got["tool_choice"], got["response_format"]) == ([tool], choice, schema)


def test_what_the_contract_cannot_carry_is_a_400_at_its_place():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": [2**63]}}}
    with pytest.raises(InvalidRequest) as caught:
        encode(tools=[tool])
    assert caught.value.param == "tools[0].function.parameters.x"
    assert caught.value.message == f"{caught.value.param}: is an integer outside 64 bits."


def test_betterproto_reads_the_same_request():
    request = encode(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, n=2)
    theirs = inference.InferenceRequest().parse(request.SerializeToString())
    assert theirs.inputs["n"].int64 == 2
    call = theirs.inputs["messages"].value_list.values[1].struct.fields["tool_calls"]
    assert call.value_list.values[0].struct.fields["id"].string == "c1"
