import json
import re
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import ChatRequest, parse_chat
from ark_trio.protocol.message import ImagePart, ImageUrl, Message, TextPart
from tests.support.strategies import JSON

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}


def parse(**fields):
    return parse_chat(orjson.dumps({"model": "m", "messages": [USER], **fields}))


def parse_messages(*messages):
    return parse(messages=list(messages)).messages


def refuse(**fields):
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param is not None
    return caught.value


def named(name):
    return {"type": "function", "function": {"name": name}}


def with_parameters(schema):
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def schema_named(name):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": {}}}


def test_the_least_request():
    assert parse() == ChatRequest(model="m", messages=(Message(role="user", content="hello"),))


def test_only_what_the_client_set_is_kept():
    chat = parse(temperature=1, top_p=None, seed=0, user="u")
    assert chat.params == {"temperature": 1.0, "seed": 0}
    assert isinstance(chat.params["temperature"], float)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": [USER, "hi"]}, "messages[1]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": 5, "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "reasoning": "hm"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages[0].content"),
        ({"messages": [{**USER, "name": 5}]}, "messages[0].name"),
        ({"messages": [{**USER, "audio": {"id": "a"}}]}, "messages[0].audio"),
        (
            {"messages": [{**USER, "tool_calls": [{**CALL, "id": 5}]}]},
            "messages[0].tool_calls[0].id",
        ),
        (
            {"messages": [{**USER, "tool_calls": [{**CALL, "type": "custom"}]}]},
            "messages[0].tool_calls[0].type",
        ),
        (
            {"messages": [{**USER, "tool_calls": [{"id": "c", "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": -0.1}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"length_penalty": 1e39}, "length_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"top_k": -2}, "top_k"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"stop": 5}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 3, "logprobs": False}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"tools": []}, "tools"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "any", "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.function"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "other"}}, "tools": [TOOL]},
            "tool_choice",
        ),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"logit_bias": {"١": 1}}, "logit_bias.١"),
        ({"logit_bias": {"1_0": 1}}, "logit_bias.1_0"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias." + "9" * 200),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"2": 1, "1": "x"}}, "logit_bias.1"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "4"}]}, "messages[0].name"),
        ({"tools": [named("f g")]}, "tools[0].function.name"),
        ({"tools": [named("")]}, "tools[0].function.name"),
        ({"tools": [named("f" * 65)]}, "tools[0].function.name"),
        ({"tools": [named("größe")]}, "tools[0].function.name"),
        ({"tools": [named("f\n")]}, "tools[0].function.name"),
        ({"tools": [TOOL, named("g"), TOOL]}, "tools[2].function.name"),
        ({"functions": [{"name": "f.g"}]}, "functions[0].name"),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name"),
        ({"response_format": schema_named(None)}, "response_format.json_schema.name"),
        ({"response_format": schema_named("a b")}, "response_format.json_schema.name"),
        ({"reasoning_effort": "a lot"}, "reasoning_effort"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"user": 5}, "user"),
        ({"safety_identifier": {}}, "safety_identifier"),
        ({"prompt_cache_key": []}, "prompt_cache_key"),
        ({"prompt_cache_options": "x"}, "prompt_cache_options"),
        ({"request_id": 7}, "request_id"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": {}}}, "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata." + "a" * 65),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    ],
)
def test_an_invalid_value_is_a_400_at_its_place(fields, param):
    error = refuse(**fields)
    assert error.param == param
    assert error.message.startswith(f"{param}: ")
    assert error.status == 400


@pytest.mark.parametrize("key", ["a", "", "-", " 1", "1_0", "1.0", "١", "9" * 20, "9" * 5000])
def test_a_bias_is_for_a_token_id(key):
    assert "expected a token id" in refuse(logit_bias={key: 1}).message


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(field):
    body = {"model": "m", "messages": [USER]}
    del body[field]
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(orjson.dumps(body))
    assert (caught.value.param, caught.value.message) == (field, f"{field}: is required.")


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"[]", b'"a"', b"\xff", b'{"a":NaN}', b"5"])
def test_a_body_that_is_no_json_object_is_a_400_without_param(body):
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body)
    assert caught.value.param is None


def test_a_body_that_is_no_text_is_told_so_in_plain_words():
    with pytest.raises(InvalidRequest, match="not UTF-8 text"):
        parse_chat(b"\x1f\x8b\x08")


@pytest.mark.parametrize(
    "fields",
    [
        {"audio": {"voice": "v"}},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"prediction": {"type": "content"}},
        {"moderation": {}},
        {"store": True},
        {"store": 0},
    ],
)
def test_what_the_backend_cannot_do_is_a_400_that_names_it(fields):
    assert refuse(**fields).param == next(iter(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"modalities": ["text"]},
        {"include_reasoning": True},
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"metadata": {"a" * 64: "x" * 512} | {str(i): "" for i in range(15)}},
        {"safety_identifier": "s"},
        {"prompt_cache_key": "k"},
        {"prompt_cache_retention": "24h"},
        {"service_tier": "auto"},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stop": []},
        {"logit_bias": {}},
        {"tools": None, "tool_choice": None, "response_format": None, "logit_bias": None},
        {"stop": None, "audio": None, "functions": None},
    ],
)
def test_what_cannot_change_the_result_is_accepted(fields):
    assert parse(**fields) == parse()


def test_every_parameter_may_be_null():
    optional = PARAMETERS.keys() - {"model", "messages"}
    assert parse(**dict.fromkeys(optional)) == parse()


def test_unknown_fields_are_listed_sorted_and_bounded():
    chat = parse(zebra=1, messages=[{**USER, "cache_control": {}}], ape=2)
    assert chat.unknown == ("ape", "messages[].cache_control", "zebra")
    many = parse(**{f"{'x' * 100}{i}": i for i in range(100)})
    assert len(many.unknown) == 32
    assert {len(name) for name in many.unknown} == {64}


def test_max_completion_tokens_wins():
    assert parse(max_tokens=5, max_completion_tokens=7).params == {"max_completion_tokens": 7}
    assert parse(max_tokens=5).params == {"max_tokens": 5}


def test_stream_options_count_only_in_a_stream():
    options = {"include_usage": True, "continuous_usage_stats": True}
    quiet, loud = parse(stream_options=options), parse(stream=True, stream_options=options)
    assert (quiet.stream, quiet.include_usage, quiet.continuous_usage) == (False, False, False)
    assert (loud.stream, loud.include_usage, loud.continuous_usage) == (True, True, True)


def test_n_is_one_unless_set():
    assert (parse().n, parse(n=3).n, parse(n=3).params) == (1, 3, {"n": 3})


def test_parts_are_kept_apart():
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "http://i", "detail": "low"}},
        {"type": "image_url", "image_url": "http://j"},
    ]
    (message,) = parse_messages({"role": "user", "content": parts})
    assert message.content == (
        TextPart(text="a"),
        ImagePart(image_url=ImageUrl(url="http://i", detail="low")),
        ImagePart(image_url=ImageUrl(url="http://j")),
    )


@pytest.mark.parametrize(
    "said",
    [
        {"tool_calls": [CALL]},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"function_call": {"name": "f", "arguments": "{}"}},
    ],
)
def test_an_assistant_turn_without_content_may_say_something_else(said):
    (message,) = parse_messages({"role": "assistant", "content": None, **said})
    assert message.content is None
    assert parse_messages({"role": "assistant", **said}) == (message,)


def test_what_an_sdk_sends_back_of_an_answer_is_accepted():
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert parse_messages(answer) == (Message(role="assistant", content="hi"),)


def test_the_last_of_duplicate_keys_counts():
    body = b'{"model":"a","model":"m","messages":[{"role":"user","content":"hello"}]}'
    assert parse_chat(body) == parse()


def test_the_first_ten_faults_are_told():
    error = refuse(messages=[5] * 1000)
    assert error.message.count("expected an object") == 10
    assert error.message.endswith("; and 1 more.")
    assert error.param == "messages[0]"


def test_every_bias_that_is_wrong_is_told_with_its_key():
    error = refuse(logit_bias={"1": 101, "2": 5, "x": 0, "3": "y"})
    assert error.message == (
        "logit_bias.1: expected a number from -100 to 100, got 101; "
        "logit_bias.x: expected a token id, an integer, as the key; "
        'logit_bias.3: expected a number, got "y".'
    )
    assert error.param == "logit_bias.1"
    many = refuse(logit_bias={f"a{i}": 1 for i in range(10_000)})
    assert many.message.count("token id") == 10


LARGE = [str(number) for number in (2**63, 2**64, -(2**63) - 1, -(2**70), 10**20)]


@pytest.mark.parametrize("digits", [*LARGE, "1" + "0" * 300])
def test_an_integer_beyond_64_bits_is_refused_as_it_stands(digits):
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(f'{{"model":"m","messages":[],"seed":{digits}}}'.encode())
    assert f"seed: expected an integer of 64 bits, got {digits[:200]};" in caught.value.message


@pytest.mark.parametrize("digits", [*LARGE, "9" * 300])
def test_an_integer_beyond_64_bits_in_a_schema_is_refused_by_name(digits):
    body = orjson.dumps(
        {"model": "m", "messages": [USER], "tools": [with_parameters({"maximum": "HERE"})]}
    ).decode()
    with pytest.raises(InvalidRequest) as caught:
        encode_chat(parse_chat(body.replace('"HERE"', digits).encode()), req_id="r", model="m")
    assert caught.value.param == "tools[0].function.parameters.maximum"


@given(
    st.recursive(
        st.integers(-(2**63), 2**63 - 1) | st.text() | st.integers(10**18, 10**19).map(str),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_reading_exactly_changes_nothing_else(value):
    body = {"model": "m", "messages": [USER], "chat_template_kwargs": {"x": value}}
    read = parse_chat(orjson.dumps(body)).params["chat_template_kwargs"]
    assert read == {"x": value}
    assert repr(read) == repr({"x": value})


def test_long_input_is_echoed_cut():
    error = refuse(temperature="x" * 100_000)
    assert "x" * 200 in error.message
    assert "x" * 201 not in error.message


def test_messages_have_no_python_in_them():
    error = refuse(
        messages=[{"role": None, "content": {}}, None], n=[], stop={}, tools=True, stream=1.5
    )
    words = set(re.findall(r"\w+", error.message))
    assert not words & {"NoneType", "None", "str", "dict", "int", "Error", "True", "float", "tuple"}
    assert "got null" in error.message


def only_invalid_request(body):
    """Whatever the bytes are, there is a message for the engine or an InvalidRequest; and nothing but them."""
    with suppress(InvalidRequest):
        encode_chat(parse_chat(body), req_id="r", model="m")


@given(st.binary() | st.text().map(str.encode))
@example(b"[" * 5000)
@example(b'{"a":' * 5000)
@example(b'{"model":"\\ud800"}')
@example(b"1e999")
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_parse_or_are_an_invalid_request(body):
    only_invalid_request(body)


PLAUSIBLE = st.fixed_dictionaries(
    {"model": st.just("m") | JSON, "messages": st.just([USER]) | st.lists(JSON) | JSON},
    optional={name: JSON for name in PARAMETERS if name not in {"model", "messages"}},
)


@given(JSON | PLAUSIBLE)
def test_any_json_parses_or_is_an_invalid_request(obj):
    only_invalid_request(json.dumps(obj, allow_nan=True).encode())


@given(st.sampled_from(sorted(PARAMETERS)), JSON)
def test_any_value_of_a_parameter_parses_or_is_an_invalid_request(name, value):
    only_invalid_request(json.dumps({"model": "m", "messages": [USER], name: value}).encode())


@given(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]) | JSON},
        optional={
            name: JSON | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text"])}))
            for name in ("content", "name", "tool_calls", "tool_call_id", "reasoning", "audio")
        },
    )
)
def test_any_message_parses_or_is_an_invalid_request(message):
    only_invalid_request(json.dumps({"model": "m", "messages": [message]}).encode())


@pytest.mark.parametrize("name", ["tools", "chat_template_kwargs", "guided_json", "metadata"])
def test_deep_nesting_is_at_worst_an_invalid_request(name):
    for depth in (20, 40, 500, 1015):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        tools = b'[{"type":"function","function":{"name":"f","parameters":' + deep + b"}}]"
        value = tools if name == "tools" else deep
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"%b":%b}'
        only_invalid_request(body % (name.encode(), value))


@pytest.mark.parametrize(
    ("fields", "batch"),
    [
        ({}, False),
        ({"service_tier": "auto"}, False),
        ({"service_tier": "flex"}, True),
        ({"priority": 0}, False),
        ({"priority": -1}, False),
        ({"priority": 1}, True),
    ],
)
def test_a_request_may_say_that_others_go_first(fields, batch):
    assert parse(**fields).batch is batch
