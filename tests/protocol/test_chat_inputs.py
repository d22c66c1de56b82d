import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2


def request(**inputs):
    made = ark_pb2.InferenceRequest()
    for key, value in inputs.items():
        fill_value(made.inputs[key.replace("__", ".")], value)
    return made


def test_flat_messages_become_a_list_of_messages():
    got = decode_inputs(
        request(
            messages__role=[b"user", b"assistant"],
            messages__content=["grüße".encode(), b""],
            messages__name=[b"zoe", b""],
            temperature=0.7,
        )
    )
    assert got == {
        "messages": [
            {"role": "user", "content": "grüße", "name": "zoe"},
            {"role": "assistant", "content": ""},
        ],
        "temperature": 0.7,
    }


def test_nested_messages_win_over_flat_ones():
    got = decode_inputs(
        request(
            messages=[{"role": "user", "content": "nested"}, {"role": "assistant"}],
            messages__role=[b"user"],
            messages__content=[b"flat"],
        )
    )
    assert got == {
        "messages": [
            {"role": "user", "content": "nested"},
            {"role": "assistant", "content": None},
        ]
    }


def test_flat_messages_may_be_text():
    got = decode_inputs(request(messages__role=["user"], messages__content=["hi"]))
    assert got == {"messages": [{"role": "user", "content": "hi"}]}


def test_other_methods_have_no_messages():
    assert decode_inputs(request(prompt="hi", tokens=[1, 2])) == {"prompt": "hi", "tokens": [1, 2]}


def test_bytes_are_text():
    assert decode_inputs(request(stop=b"\n", guided_choice=[b"a"])) == {
        "stop": "\n",
        "guided_choice": ["a"],
    }


def test_bytes_are_text_however_deep_they_stand():
    parts = [{"type": "text", "text": "grüße".encode()}]
    got = decode_inputs(request(messages=[{"role": b"user", "content": b"hi", "parts": parts}]))
    spelled = [{"type": "text", "text": "grüße"}]
    assert got == {"messages": [{"role": "user", "content": "hi", "parts": spelled}]}
    assert decode_inputs(request(logit_bias={5: b"x"})) == {"logit_bias": {5: "x"}}


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user"}, 5]}, "messages[1]"),
        ({"messages": [{"content": "hi"}, None]}, "messages[0]"),
        ({"messages__role": [b"user"]}, "messages"),
        ({"messages__content": [b"hi"]}, "messages"),
        ({"messages__role": [], "messages__content": []}, "messages"),
        ({"messages__role": [b"user"], "messages__content": [b"a", b"b"]}, "messages"),
        ({"messages__role": [1], "messages__content": [b"a"]}, "messages"),
        (
            {"messages__role": [b"u"], "messages__content": [b"a"], "messages__name": b"z"},
            "messages",
        ),
        ({"stop": b"\xff"}, "stop"),
        ({"stop": [b"a", b"\xff"]}, "stop"),
        ({"messages": [{"role": "user", "content": b"\xff"}]}, "messages"),
        ({"response_format": {"type": [{"x": b"\xff"}]}}, "response_format"),
        ({"messages__role": [b"user"], "messages__content": [b"\xff"]}, "messages.content"),
    ],
)
def test_malformed_messages_are_an_invalid_request(inputs, param):
    with pytest.raises(InvalidRequest) as caught:
        decode_inputs(request(**inputs))
    assert caught.value.param == param


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.text(max_size=20),
        },
        optional={"name": st.text(min_size=1, max_size=5), "tool_call_id": st.just("c1")},
    )
    | st.fixed_dictionaries(
        {"role": st.just("tool"), "content": st.text(), "tool_call_id": st.just("c1")}
    ),
    min_size=1,
    max_size=5,
)


@given(MESSAGES)
def test_messages_reach_the_engine_as_the_client_sent_them(messages):
    chat = parse_chat(orjson.dumps({"model": "m", "messages": messages}))
    wire = encode_chat(chat, req_id="r", model="m").SerializeToString()
    assert decode_inputs(ark_pb2.InferenceRequest.FromString(wire))["messages"] == messages
