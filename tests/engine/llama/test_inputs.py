"""What becomes of each input on its way to llama.cpp."""

from typing import Any

import pytest

from ark_trio.engine.llama.inputs import check_messages, read_parameters
from ark_trio.errors import InvalidRequest
from ark_trio.protocol.chat_body import PARAMETERS

NOTHING = frozenset[str]()


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ({"max_new_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"logit_bias": {5: -100, 6: 0.5}}, {"logit_bias": {"5": -100, "6": 0.5}}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"guided_grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ({"guided_json": {"type": "object"}}, {"json_schema": {"type": "object"}}),
        (
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
        ),
        ({"min_tokens": 0, "length_penalty": 1.0, "skip_special_tokens": True}, {}),
        ({"top_p": None}, {}),
    ],
)
def test_parameters_take_llama_cpps_names(inputs: dict[str, Any], body: dict[str, Any]):
    assert read_parameters(inputs, beside=NOTHING).body == body


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_tokens", 3),
        ("length_penalty", 0.5),
        ("stop_token_ids", [1]),
        ("include_stop_str_in_output", True),
        ("skip_special_tokens", False),
        ("guided_regex", "a+"),
        ("reasoning_effort", "high"),
        ("cache_salt", "x"),
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
        ("stop", ""),
        ("stop", [1]),
        ("guided_grammar", {}),
    ],
)
def test_what_it_cant_do_is_refused_by_name(key: str, value: Any):
    with pytest.raises(InvalidRequest) as raised:
        read_parameters({key: value}, beside=NOTHING)
    assert raised.value.param == key


def test_every_parameter_that_gateways_forward_is_passed_on_or_refused():
    odd = object()
    for parameter in PARAMETERS.values():
        key = getattr(parameter, "key", None)
        if key in (None, "max_prompt_tokens", "continue_final_message"):
            continue
        try:
            wanted = read_parameters({key: odd}, beside=NOTHING)
        except InvalidRequest:
            continue
        assert odd in wanted.body.values(), key


def test_each_choice_has_a_seed_of_its_own_that_follows_from_the_requests():
    wanted = read_parameters({"seed": 7, "n": 3}, beside=NOTHING)
    assert [wanted.choice(index)["seed"] for index in range(wanted.n)] == [7, 8, 9]
    assert "seed" not in read_parameters({}, beside=NOTHING).choice(0)


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**63 - 1])
def test_no_seed_is_mistaken_for_random(seed: int):
    folded = read_parameters({"seed": seed}, beside=NOTHING).choice(0)["seed"]
    assert 0 <= folded < 2**32 - 1


USER = {"role": "user", "content": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def test_text_messages_pass():
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    turn: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    assert check_messages({"messages": [USER, parts, turn]}, tools=False) == [USER, parts, turn]


def test_an_image_is_refused_naming_its_place():
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    with pytest.raises(InvalidRequest) as raised:
        check_messages({"messages": [USER, image]}, tools=False)
    assert raised.value.param == "messages[1].content"


def test_tools_are_refused_where_the_template_would_drop_them():
    inputs = {"messages": [USER], "tools": TOOLS}
    with pytest.raises(InvalidRequest) as raised:
        check_messages(inputs, tools=False)
    assert raised.value.param == "tools"
    check_messages(inputs, tools=True)
    check_messages({**inputs, "tool_choice": "none"}, tools=False)


@pytest.mark.parametrize("inputs", [{}, {"messages": []}])
def test_no_messages_are_refused(inputs: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        check_messages(inputs, tools=False)
