"""The description and the gateway agree: what it admits is taken, what it doesn't is refused.

What a schema can't say, or not without ending the patience of generators, is listed here, and nothing else may differ.
"""

from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.completion_request import parse_completion
from ark_trio.protocol.tokenize import parse_detokenize, parse_tokenize
from tests.support.conform import DESCRIPTION, admits

pytestmark = pytest.mark.filterwarnings("ignore")  # the generator's own, not ours to mend

BODIES: dict[str, tuple[str, Any]] = {
    "ChatBody": ("/v1/chat/completions", parse_chat),
    "CompletionBody": ("/v1/completions", parse_completion),
    "TokenizeBody": ("/v1/tokenize", parse_tokenize),
    "DetokenizeBody": ("/v1/detokenize", parse_detokenize),
}
BEYOND_THE_SCHEMA = (
    "expected a name of its own",
    "expected the name of one of the",
    "is allowed only when logprobs is true",
    "expected a JSON schema",  # spelled in a text
    "expected at most 128 choices in all",
    "expected at least n",
    "can't be streamed unless it equals n",
    "nested more than",
    "more.",  # of the same
)
API = schemathesis.openapi.from_dict(DESCRIPTION)
FEW = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("name", BODIES)
def test_what_is_described_is_what_is_taken(name: str, mode: GenerationMode):
    path, parse = BODIES[name]
    judged = []

    @FEW
    @given(API[path]["post"].as_strategy(generation_mode=mode))
    def agree(case: Any) -> None:
        try:
            body = orjson.dumps(case.body)
        except orjson.JSONEncodeError:
            return  # no JSON, or no body at all
        described = admits(name, orjson.loads(body))
        judged.append(described)
        if described:
            assert all(map(beyond_the_schema, faults(parse, body)))
        else:
            assert faults(parse, body)

    agree()
    assert (mode is GenerationMode.POSITIVE) in judged


ROLES: list[tuple[dict[str, Any], bool]] = [
    ({"role": "user"}, False),
    ({"role": "user", "content": None, "tool_calls": []}, False),
    ({"role": "assistant", "content": None}, False),
    ({"role": "assistant", "tool_calls": []}, False),
    ({"role": "assistant", "reasoning": ""}, False),
    ({"role": "assistant", "content": ""}, True),
    ({"role": "assistant", "refusal": "no"}, True),
    ({"role": "assistant", "function_call": {"name": "f"}}, True),
    ({"role": "tool", "content": "4"}, False),
    ({"role": "tool", "tool_call_id": "c"}, False),
    ({"role": "tool", "content": "4", "tool_call_id": "c"}, True),
    ({"role": "function", "content": "4"}, False),
    ({"role": "function", "name": "f"}, True),
]
F = {"name": "f"}
TOOL = {"type": "function", "function": F}
FORM = {"type": "json_schema", "json_schema": {"name": "a"}}
CHATS: list[tuple[dict[str, Any], bool]] = [
    *(({"messages": [message]}, good) for message, good in ROLES),
    ({"seed": 1.0, "n": 2.0}, True),
    ({"response_format": {"type": "json_schema"}}, False),
    ({"response_format": {"type": "json_schema", "json_schema": None}}, False),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, False),
    ({"response_format": FORM}, True),
    ({"response_format": FORM, "guided_regex": "a"}, False),
    ({"response_format": {"type": "text"}, "guided_regex": "a"}, True),
    ({"guided_grammar": "a", "guided_regex": "a"}, False),
    ({"tool_choice": "auto"}, False),
    ({"tool_choice": "auto", "tools": [TOOL]}, True),
    ({"function_call": "auto"}, False),
    ({"function_call": "auto", "functions": [F]}, True),
    ({"functions": [F], "tools": [TOOL]}, False),
    ({"structured_outputs": {}}, False),
    ({"structured_outputs": {"json_object": False}}, False),
    ({"structured_outputs": {"json_object": True, "vendor": None}}, True),
    ({"structured_outputs": {"json_object": True, "vendor": 1}}, False),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, False),
    ({"guided_json": {}}, True),
    ({"guided_json": 5}, False),
    ({"stop": ""}, False),
    ({"metadata": {"a": 1}}, False),
    ({"reasoning_effort": "max", "verbosity": "low", "service_tier": "flex"}, True),
]


@pytest.mark.parametrize(("fields", "good"), CHATS)
def test_what_takes_two_fields_to_judge_is_described_too(fields: dict[str, Any], *, good: bool):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    assert admits("ChatBody", body) is good
    assert (not faults(parse_chat, orjson.dumps(body))) is good


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"max_tokens": 0}, False),
        ({"max_tokens": 0, "echo": False}, False),
        ({"max_tokens": 0, "echo": True}, True),
        ({"max_tokens": None}, True),
        ({"prompt": [1.0, 2]}, True),
        ({"prompt": [1, -2]}, False),
        ({"prompt": None}, False),
    ],
)
def test_completions_are_described_too(fields: dict[str, Any], *, good: bool):
    body = {"model": "m", "prompt": "a", **fields}
    assert admits("CompletionBody", body) is good
    assert (not faults(parse_completion, orjson.dumps(body))) is good


def faults(parse: Any, body: bytes) -> list[str]:
    try:
        parse(body)
    except InvalidRequest as error:
        return error.message.split("; ")
    return []


def beyond_the_schema(fault: str) -> bool:
    return any(words in fault for words in BEYOND_THE_SCHEMA)


def test_an_integer_may_be_spelled_with_a_fraction_of_nothing():
    body = b'{"model":"m","prompt":[3.0],"seed":7.0,"n":1.0}'
    asked = parse_completion(body)
    assert (asked.prompts, asked.params) == (((3,),), {"n": 1, "seed": 7})
    assert type(asked.params["seed"]) is int
