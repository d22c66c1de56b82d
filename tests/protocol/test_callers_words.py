"""An engine's refusal names what the caller wrote."""

from typing import Any

import orjson
import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.callers_words import callers_names, in_callers_words, own_names
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.parameter import parameters_of
from ark_trio.protocol.tokenize import DetokenizeBody, TokenizeBody


def names(**fields: Any):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return callers_names(parse_chat(orjson.dumps(body)).params, PARAMETERS)


def test_what_has_one_name_is_not_listed():
    assert names(temperature=0.5, tools=None, response_format={"type": "json_object"}) == {}
    assert names(max_completion_tokens=5) == {"max_new_tokens": "max_completion_tokens"}


@pytest.mark.parametrize(
    ("fields", "param", "message", "told_param", "told"),
    [
        (
            {"guided_json": {"type": "odd"}},
            "response_format",
            "response_format: the schema names no JSON type.",
            "guided_json",
            "guided_json: the schema names no JSON type.",
        ),
        (
            {"guided_json": {}},
            "response_format.json_schema.schema",
            "response_format.json_schema.schema must be an object.",
            "guided_json",
            "guided_json must be an object.",
        ),
        (
            {"structured_outputs": {"choice": ["a"]}},
            "guided_grammar",
            "This model's tokens can't write what the grammar demands.",
            "structured_outputs",
            "This model's tokens can't write what the grammar demands.",
        ),
        (
            {"thinking": True},
            "chat_template_kwargs[x]",
            "chat_template_kwargs: no.",
            "thinking",
            "thinking: no.",
        ),
        ({"guided_json": {}}, "response_formats", "no", "response_formats", "no"),
        ({"guided_json": {}}, None, "no", None, "no"),
        ({"seed": 1}, "inputs.seed", "inputs.seed is odd.", "seed", "seed is odd."),
        (
            {"max_tokens": 5},
            "inputs.max_new_tokens",
            "inputs.max_new_tokens must be less.",
            "max_tokens",
            "max_tokens must be less.",
        ),
    ],
)
def test_it_names_what_the_caller_wrote(fields, param, message, told_param, told):
    error = InvalidRequest(message, param=param, code="c")
    seen = in_callers_words(error, names(**fields))
    assert (type(seen), seen.message, seen.param, seen.code) == (
        InvalidRequest,
        told,
        told_param,
        "c",
    )


def test_what_an_engine_says_of_text_to_cut_is_about_the_prompt():
    names = own_names(parameters_of(TokenizeBody))
    assert names == {"text": "prompt"}
    seen = in_callers_words(InvalidRequest("text: too long.", param="text"), names)
    assert (seen.param, seen.message) == ("prompt", "prompt: too long.")
    assert own_names(parameters_of(DetokenizeBody)) == {}
