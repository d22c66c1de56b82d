"""The table of parameters tells the truth about what each becomes."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.ark_request import encode_chat, encode_completion
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.completion_body import PARAMETERS as COMPLETION_PARAMETERS
from ark_trio.protocol.completion_request import parse_completion
from ark_trio.protocol.parameter import Treatment
from ark_trio.protocol.value import from_value
from tests.protocol.test_chat_request import TOOL, USER

# What OpenAI's API description 2.3.0 lists.
OPENAI = [
    "messages",
    "model",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
]
EXTRAS = [
    "top_k",
    "min_p",
    "repetition_penalty",
    "length_penalty",
    "min_tokens",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "chat_template_kwargs",
    "continue_final_message",
    "add_generation_prompt",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "priority",
    "request_id",
    "cache_salt",
    "include_reasoning",
    "separate_reasoning",
    "thinking",
    "max_prompt_tokens",
]

EXAMPLES: dict[str, list[Any]] = {
    "max_tokens": [5],
    "max_completion_tokens": [5],
    "n": [2],
    "seed": [-7],
    "temperature": [0, 0.7],
    "top_p": [1, 0.9],
    "presence_penalty": [1],
    "frequency_penalty": [-1],
    "stop": ["a", ["a", "b"]],
    "logit_bias": [{"5": 1, "-6": 0.5}],
    "logprobs": [True],
    "top_logprobs": [3],
    "response_format": [{"type": "json_object"}],
    "tools": [[TOOL]],
    "tool_choice": [
        "required",
        {"type": "function", "function": {"name": "look_up"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "look_up"}}],
            },
        },
    ],
    "parallel_tool_calls": [False],
    "functions": [[TOOL["function"]]],
    "function_call": ["none", {"name": "look_up"}],
    "reasoning_effort": ["low"],
    "verbosity": ["low"],
    "top_k": [40],
    "min_p": [0],
    "repetition_penalty": [1],
    "length_penalty": [1],
    "min_tokens": [0],
    "max_prompt_tokens": [100],
    "stop_token_ids": [[1, 2], []],
    "include_stop_str_in_output": [True],
    "ignore_eos": [True],
    "skip_special_tokens": [False],
    "chat_template_kwargs": [{"enable_thinking": False}],
    "continue_final_message": [True],
    "add_generation_prompt": [False],
    "structured_outputs": [{"regex": "a+"}, {"json_object": True}],
    "guided_json": [{"type": "object"}, "{}"],
    "guided_regex": ["a+"],
    "guided_choice": [["a", "b"]],
    "guided_grammar": ["root ::= 'a'"],
    "thinking": [{"type": "enabled"}, False],
    "priority": [1],
    "cache_salt": ["s"],
}
NEEDS: dict[str, Any] = {
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [TOOL]},
    "function_call": {"functions": [TOOL["function"]]},
}
CHANGED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "logprobs": lambda _: {"logprobs": 1},
    "logit_bias": lambda biases: {"logit_bias": {int(k): v for k, v in biases.items()}},
    "structured_outputs": lambda given: (
        {"guided_regex": given["regex"]}
        if "regex" in given
        else {"response_format": {"type": "json_object"}}
    ),
    "guided_json": lambda schema: {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "schema": orjson.loads(schema) if isinstance(schema, str) else schema,
            },
        }
    },
    "guided_choice": lambda choices: {
        "guided_grammar": "root ::= " + " | ".join(f'"{choice}"' for choice in choices)
    },
    "tool_choice": lambda choice: {
        "tool_choice": choice["allowed_tools"]["mode"] if "allowed_tools" in choice else choice
    },
    "functions": lambda functions: {
        "tools": [{"type": "function", "function": function} for function in functions],
        "parallel_tool_calls": False,
    },
    "function_call": lambda choice: {
        "tool_choice": choice
        if isinstance(choice, str)
        else {"type": "function", "function": choice}
    },
    "thinking": lambda given: {
        "chat_template_kwargs": dict.fromkeys(("thinking", "enable_thinking"), bool(given))
    },
}
"""Parameters that reach the engine in other words than the client's."""

ACTED_ON = {"model", "messages", "stream", "stream_options"}
ACTED_ON |= {"include_reasoning", "separate_reasoning", "service_tier"}
CANNOT_CHANGE_A_RESULT = {"metadata", "user", "safety_identifier", "request_id"}
CANNOT_CHANGE_A_RESULT |= {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
REFUSED = {"audio", "modalities", "web_search_options", "prediction", "moderation"}
REFUSED |= {"store"}


def named(treatment, table=PARAMETERS):
    return {p.name for p in table.values() if p.treatment is treatment}


FORWARDED = sorted(named(Treatment.FORWARDED))


def encode(**fields):
    body = orjson.dumps({"model": "m", "messages": [USER], **fields})
    return encode_chat(parse_chat(body), req_id="r", model="m")


def inputs(**fields):
    return {key: from_value(value) for key, value in encode(**fields).inputs.items()}


WITHOUT_EFFECT: dict[str, Any] = {"metadata": {"a": "b"}, "prompt_cache_options": {"a": "b"}}


def test_every_parameter_of_the_api_has_its_row():
    assert set(PARAMETERS) == {*OPENAI, *EXTRAS}
    assert all(name == parameter.name for name, parameter in PARAMETERS.items())


def test_every_parameter_is_forwarded_acted_on_refused_or_cannot_change_a_result():
    assert named(Treatment.ACTED_ON) == ACTED_ON
    assert named(Treatment.NO_EFFECT) == CANNOT_CHANGE_A_RESULT
    assert named(Treatment.REFUSED) == REFUSED
    assert set(FORWARDED) == set(EXAMPLES)


@pytest.mark.parametrize("name", FORWARDED)
def test_a_forwarded_parameter_is_an_input_of_the_engine_in_its_arm(name):
    parameter = PARAMETERS[name]
    around = inputs(**NEEDS.get(name, {}))
    for example in EXAMPLES[name]:
        encoded = encode(**{name: example}, **NEEDS.get(name, {}))
        got = {key: from_value(value) for key, value in encoded.inputs.items()}
        expected = CHANGED[name](example) if name in CHANGED else {parameter.key: example}
        assert got == {**around, **expected}
        if parameter.arms:
            assert encoded.inputs[parameter.key].WhichOneof("kind") in parameter.arms


@pytest.mark.parametrize("name", sorted(set(PARAMETERS) - set(FORWARDED) - {"model", "messages"}))
def test_what_is_not_forwarded_leaves_no_key(name):
    parameter = PARAMETERS[name]
    assert parameter.key == ""
    if parameter.treatment is Treatment.NO_EFFECT:
        assert encode(**{name: WITHOUT_EFFECT.get(name, "x")}) == encode()


def test_every_row_that_needs_words_has_them():
    for parameter in PARAMETERS.values():
        assert parameter.note or parameter.treatment is Treatment.FORWARDED


COMPLETION_EXAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "logprobs": (2, {"logprobs": 2}),
    "echo": (True, {"echo": True}),
    "suffix": ("!", {"suffix": "!"}),
    "max_tokens": (5, {"max_new_tokens": 5}),
}


@pytest.mark.parametrize("name", sorted(named(Treatment.FORWARDED, COMPLETION_PARAMETERS)))
def test_a_completion_s_parameter_is_an_input_of_the_engine(name):
    given = COMPLETION_EXAMPLES[name][0] if name in COMPLETION_EXAMPLES else EXAMPLES[name][0]
    asked = parse_completion(orjson.dumps({"model": "m", "prompt": "p", name: given}))
    request = encode_completion(asked, "p", req_id="r", model="m")
    got = {key: from_value(value) for key, value in request.inputs.items()}
    if name in COMPLETION_EXAMPLES:
        expected = COMPLETION_EXAMPLES[name][1]
    else:
        expected = CHANGED[name](given) if name in CHANGED else {name: given}
    assert got == {"prompt": "p", **expected}


def test_every_parameter_of_completions_has_its_row():
    openai = {"model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs"}
    openai |= {"max_tokens", "n", "presence_penalty", "seed", "stop", "stream", "stream_options"}
    openai |= {"suffix", "temperature", "top_p", "user"}
    assert openai <= set(COMPLETION_PARAMETERS)
    assert named(Treatment.ACTED_ON, COMPLETION_PARAMETERS) == {
        *("model", "prompt", "best_of", "stream", "stream_options")
    }
    assert named(Treatment.NO_EFFECT, COMPLETION_PARAMETERS) <= CANNOT_CHANGE_A_RESULT
    assert named(Treatment.REFUSED, COMPLETION_PARAMETERS) == {"store"}


def allowed(*names: str, mode: str = "auto") -> Any:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_of_allowed_tools_engines_and_readers_know_no_others():
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    body = {"model": "m", "messages": [USER], "tools": tools}
    chat = parse_chat(orjson.dumps({**body, "tool_choice": allowed("c", "a")}))
    assert chat.params["tools"] == [tools[0], tools[2]]
    assert chat.params["tool_choice"] == "auto"
    assert chat.reading.tool_names == {"a", "c"}
    none = parse_chat(orjson.dumps({**body, "tool_choice": allowed()}))
    assert (none.params["tool_choice"], none.reading.tool_names) == ("none", frozenset())


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (allowed("other"), "tool_choice"),
        (allowed("look_up", mode="none"), "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools"}, "tool_choice.allowed_tools"),
    ],
)
def test_allowed_tools_that_cant_be_are_refused_by_name(choice: Any, param: str):
    with pytest.raises(InvalidRequest) as refusal:
        inputs(tools=[TOOL], tool_choice=choice)
    assert refusal.value.param == param


def test_a_refusal_among_the_parts_of_an_assistants_turn_is_what_it_said():
    parts = [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    body = {"model": "m", "messages": [USER, {"role": "assistant", "content": parts}]}
    request = encode_chat(parse_chat(orjson.dumps(body)), req_id="r", model="m")
    assert from_value(request.inputs["messages.content"])[1] == b"Well.\nNo."
    told = from_value(request.inputs["messages"])[1]["content"]
    assert told == [{"type": "text", "text": "Well."}, {"type": "text", "text": "No."}]
