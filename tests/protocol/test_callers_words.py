"""An engine's refusal names what the caller wrote."""

from typing import Any

import orjson
import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.callers_words import callers_names, in_callers_words
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import parse_chat


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
