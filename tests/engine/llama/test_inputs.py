"""What becomes of each input on its way to llama.cpp."""

from typing import Any

import pytest

from ark_trio.engine.llama.inputs import CHAT_ONLY, check_messages, read_parameters
from ark_trio.errors import InvalidRequest
from ark_trio.protocol.chat_body import PARAMETERS

NOTHING = frozenset[str]()


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ({"max_new_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"max_new_tokens": 2**32 + 2}, {"max_tokens": 2**31 - 1}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 2**32 + 1}, {"top_k": 2**31 - 1}),
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"logit_bias": {5: -100, 6: 0.5}}, {"logit_bias": {"5": -100, "6": 0.5}}),
        ({"min_tokens": 0, "length_penalty": 1.0, "skip_special_tokens": True}, {}),
        ({"top_p": None, "n": None, "seed": None, "max_prompt_tokens": None}, {}),
    ],
)
def test_parameters_take_llama_cpps_names(inputs: dict[str, Any], body: dict[str, Any]):
    assert read_parameters(inputs, beside=NOTHING).body == body


@pytest.mark.parametrize(
    ("inputs", "template"),
    [
        ({"continue_final_message": False}, {}),
        (
            {"continue_final_message": True},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
        ({"chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"a": 1}}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ],
)
def test_the_template_gets_its_own(inputs: dict[str, Any], template: dict[str, Any]):
    assert read_parameters(inputs, beside=NOTHING).template == template


@pytest.mark.parametrize(
    ("inputs", "held"),
    [
        ({"stop": "a"}, {"stops": ("a",)}),
        ({"stop": ["a", "b"]}, {"stops": ("a", "b")}),
        ({"stop_token_ids": [5, 6]}, {"stop_tokens": {5, 6}}),
        ({"include_stop_str_in_output": True}, {"include_stop": True}),
        ({"logprobs": 3}, {"logprobs": 3}),
        ({"min_tokens": 3, "max_new_tokens": 3}, {"min_tokens": 3, "max_tokens": 3}),
        ({"cache_salt": "x"}, {"salt": "x"}),
        ({"n": 3, "seed": 7, "max_prompt_tokens": 9}, {"n": 3, "seed": 7, "max_prompt_tokens": 9}),
    ],
)
def test_what_is_done_here_is_kept(inputs: dict[str, Any], held: dict[str, Any]):
    wanted = read_parameters(inputs, beside=NOTHING)
    assert {name: getattr(wanted, name) for name in held} == held


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({"min_tokens": 5, "max_new_tokens": 4}, "min_tokens"),
        ({"min_tokens": 5, "logprobs": 1}, "min_tokens"),
        ({"min_tokens": 5, "guided_choice": ["a"]}, "min_tokens"),
        (
            {"min_tokens": 5, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "min_tokens",
        ),
        ({"ignore_eos": True, "guided_regex": "a"}, "ignore_eos"),
        (
            {"ignore_eos": True, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "ignore_eos",
        ),
        ({"structured_outputs": {"regex": "a"}, "guided_choice": ["a"]}, "guided_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_cant_be_done_together_is_refused(inputs: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as raised:
        read_parameters(inputs, beside=NOTHING)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_tokens", -1),
        ("length_penalty", 0.5),
        ("stop_token_ids", ["x"]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", list(range(300))),
        ("include_stop_str_in_output", 1),
        ("skip_special_tokens", False),
        ("guided_regex", "(a"),
        ("guided_regex", 5),
        ("guided_choice", []),
        ("guided_choice", [1]),
        ("guided_grammar", "(" * 300),
        ("guided_grammar", "x" * 300_000),
        ("guided_json", {"type": "odd"}),
        ("structured_outputs", {}),
        ("structured_outputs", {"regex": "a", "choice": ["b"]}),
        ("structured_outputs", {"whitespace_pattern": "a"}),
        ("structured_outputs", {"regex": "(a"}),
        ("reasoning_effort", 3),
        ("cache_salt", 1),
        ("priority", 1),
        ("echo", True),
        ("suffix", "x"),
        ("stop", ["x"] * 33),
        ("stop", "x" * 1025),
        ("something_new", 1),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", 1.5),
        ("n", 0),
        ("n", 1000),
        ("seed", "x"),
        ("logprobs", 0),
        ("logprobs", 21),
        ("logit_bias", {"5": 1}),
        ("logit_bias", {5: "x"}),
        ("logit_bias", {5: float("inf")}),
        ("logit_bias", {-5: 1}),
        ("logit_bias", {2**31: 1}),
        ("temperature", float("nan")),
        ("temperature", -0.5),
        ("top_p", float("inf")),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("presence_penalty", float("-inf")),
        ("repetition_penalty", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", 1.5),
        ("max_prompt_tokens", "x"),
        ("max_prompt_tokens", -1),
        ("n", "3"),
        ("seed", True),
        ("logprobs", True),
        ("guided_grammar", ""),
        ("guided_json", "x"),
        ("guided_json", True),
        ("guided_json", {5: "x"}),
        ("response_format", "x"),
        ("response_format", {5: "x"}),
        ("response_format", {"type": "xml"}),
        ("tools", "x"),
        ("tools", [{"type": "function"}]),
        ("tools", [{"type": "retrieval", "function": {"name": "f"}}]),
        ("tool_choice", 1),
        ("tool_choice", "maybe"),
        ("tool_choice", {"type": "function"}),
        ("parallel_tool_calls", 1),
        ("ignore_eos", "x"),
        ("add_generation_prompt", "x"),
        ("continue_final_message", 1),
        ("chat_template_kwargs", "x"),
        ("stop", ""),
        ("stop", [1]),
        ("guided_grammar", {}),
    ],
)
def test_what_it_cant_do_is_refused_by_name(key: str, value: Any):
    with pytest.raises(InvalidRequest) as raised:
        read_parameters({key: value}, beside=NOTHING)
    # The sampler's limit has OpenAI's name.
    assert raised.value.param == ("max_tokens" if key == "max_new_tokens" else key)


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({"chat_template_kwargs": {"messages": [1]}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        (
            {"chat_template_kwargs": {"enable_thinking": "x"}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object"}, "guided_json": {}}, "guided_json"),
        (
            {"response_format": {"type": "json_object"}, "guided_grammar": "root ::= [a]"},
            "guided_grammar",
        ),
        ({"guided_json": {}, "guided_grammar": "root ::= [a]"}, "guided_grammar"),
    ],
)
def test_what_contradicts_itself_or_the_request_is_refused_where_it_stands(
    inputs: dict[str, Any], param: str
):
    with pytest.raises(InvalidRequest) as raised:
        read_parameters(inputs, beside=NOTHING)
    assert raised.value.param == param


def test_parameters_of_conversations_are_refused_beside_a_plain_prompt():
    for key in CHAT_ONLY:
        with pytest.raises(InvalidRequest) as raised:
            read_parameters({key: True}, beside=NOTHING, refused=CHAT_ONLY)
        assert raised.value.param == key
        assert read_parameters({key: None}, beside=NOTHING, refused=CHAT_ONLY).body == {}


PARSER = "Unable to generate parser for this template. Automatic parser generation failed: "
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}


@pytest.mark.parametrize(
    ("inputs", "said", "param", "message"),
    [
        ({"response_format": SCHEMA}, PARSER + "JSON schema error", "response_format", None),
        (
            {"guided_grammar": "root ::= [a]"},
            "Failed to initialize samplers: failed to parse grammar",
            "guided_grammar",
            "failed to parse grammar",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "a schema", "tools", None),
        ({}, "Roles must alternate", "messages", None),
    ],
)
def test_what_llama_cpp_refuses_names_the_parameter_that_it_is_about(
    inputs: dict[str, Any], said: str, param: str, message: str | None
):
    told = read_parameters(inputs, beside=NOTHING).blame(InvalidRequest(said), "messages")
    assert told.param == param
    assert told.message == (message or said.removeprefix(PARSER))


def test_a_refusal_that_names_its_parameter_keeps_it():
    error = InvalidRequest("no grammar fits", param="messages", code="context_length_exceeded")
    told = read_parameters({"guided_grammar": "root ::= [a]"}, beside=NOTHING).blame(error)
    assert (told.message, told.param, told.code) == (error.message, error.param, error.code)


def test_every_parameter_that_gateways_forward_is_read_or_refused_by_name():
    odd = object()
    for parameter in PARAMETERS.values():
        key = getattr(parameter, "key", None)
        if key is None:
            continue
        with pytest.raises(InvalidRequest) as raised:
            read_parameters({key: odd}, beside=NOTHING)
        assert raised.value.param in (key, "max_tokens")


def test_each_choice_has_a_seed_of_its_own_that_follows_from_the_requests():
    wanted = read_parameters({"seed": 7, "n": 3}, beside=NOTHING)
    assert [wanted.choice(index)["seed"] for index in range(wanted.n)] == [7, 8, 9]
    assert "seed" not in read_parameters({}, beside=NOTHING).choice(0)


def test_tools_that_may_not_be_called_are_in_nobodys_way():
    beside = {"tools": TOOLS, "tool_choice": "none", "min_tokens": 2, "ignore_eos": True}
    assert read_parameters(beside, beside=NOTHING).min_tokens == 2


@pytest.mark.parametrize("seed", [-2, -1, 2**32 - 2, 2**32 - 1, 2**63 - 1])
def test_no_seed_is_mistaken_for_random_nor_for_its_neighbour(seed: int):
    wanted = read_parameters({"seed": seed}, beside=NOTHING)
    first, second = (wanted.choice(index)["seed"] for index in (0, 1))
    assert first != second
    assert all(0 <= folded < 2**32 - 1 for folded in (first, second))


USER = {"role": "user", "content": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def test_text_messages_pass():
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    turn: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    assert check_messages({"messages": [USER, parts, turn]}) == [USER, parts, turn]


def test_an_image_is_refused_naming_its_place():
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    with pytest.raises(InvalidRequest) as raised:
        check_messages({"messages": [USER, image]})
    assert raised.value.param == "messages[1].content"


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ({"content": 5}, "content"),
        ({"content": {"a": 1}}, "content"),
        ({"content": ["text"]}, "content"),
        ({"content": [{"type": "text"}]}, "content"),
        ({"content": [{"type": "text", "text": 5}]}, "content"),
        ({"content": "x", "name": 5}, "name"),
        ({"content": "x", "tool_call_id": 5}, "tool_call_id"),
        ({"content": None, "tool_calls": "x"}, "tool_calls"),
        ({"content": None, "tool_calls": [{"x": 1}]}, "tool_calls"),
        ({"content": None, "tool_calls": [{**CALL, "id": 5}]}, "tool_calls"),
        ({"content": None, "tool_calls": [{**CALL, "function": {"name": "f"}}]}, "tool_calls"),
    ],
)
def test_a_message_that_llama_cpp_would_fail_on_is_refused_naming_its_place(
    message: dict[str, Any], place: str
):
    messages = [USER, {"role": "assistant", **message}]
    with pytest.raises(InvalidRequest) as raised:
        check_messages({"messages": messages})
    assert raised.value.param == f"messages[1].{place}"


def test_a_turn_of_tool_calls_passes():
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert check_messages({"messages": [USER, turn]}) == [USER, turn]


def test_only_the_assistants_last_turn_is_continued():
    turn = {"role": "assistant", "content": "Once"}
    inputs = {"messages": [USER, turn], "continue_final_message": True}
    assert check_messages(inputs) == [USER, turn]
    for change in ({"messages": [turn, USER]}, {"add_generation_prompt": True}):
        with pytest.raises(InvalidRequest) as raised:
            check_messages({**inputs, **change})
        assert raised.value.param == "continue_final_message"
    check_messages({"messages": [USER], "continue_final_message": False})


@pytest.mark.parametrize("inputs", [{}, {"messages": []}])
def test_no_messages_are_refused(inputs: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        check_messages(inputs)
