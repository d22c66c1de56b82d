"""The table of parameters tells the truth about what each becomes."""

from typing import Any

import orjson
import pytest

from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.parameter import Treatment
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
    "tool_choice": ["required", {"type": "function", "function": {"name": "look_up"}}],
    "parallel_tool_calls": [False],
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
    "structured_outputs": [],  # several keys: test_constraint.py
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
}
FORWARDED = [p.name for p in PARAMETERS.values() if p.treatment is Treatment.FORWARDED]


def encode(**fields):
    body = orjson.dumps({"model": "m", "messages": [USER], **fields})
    return encode_chat(parse_chat(body), req_id="r", model="m")


def test_every_parameter_of_the_api_has_its_row():
    assert set(PARAMETERS) == {*OPENAI, *EXTRAS}
    assert all(name == parameter.name for name, parameter in PARAMETERS.items())


@pytest.mark.parametrize("name", FORWARDED)
def test_a_forwarded_parameter_arrives_under_its_key_in_its_arm(name):
    parameter = PARAMETERS[name]
    for example in EXAMPLES[name]:
        inputs = encode(**{name: example}, **NEEDS.get(name, {})).inputs
        assert parameter.key in inputs
        arm = inputs[parameter.key].WhichOneof("kind")
        assert not parameter.arms or arm in parameter.arms


@pytest.mark.parametrize("name", set(PARAMETERS) - set(FORWARDED) - {"model", "messages"})
def test_what_is_not_forwarded_leaves_no_key(name):
    treatment = PARAMETERS[name].treatment
    assert treatment is not Treatment.FORWARDED
    assert PARAMETERS[name].key == ""
    if treatment is Treatment.NO_EFFECT:
        assert encode(**{name: "x"}) == encode()


def test_every_row_that_needs_words_has_them():
    for parameter in PARAMETERS.values():
        assert parameter.note or parameter.treatment is Treatment.FORWARDED
