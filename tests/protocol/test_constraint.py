import orjson
import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.value import from_value

SCHEMA = {"type": "object"}


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def inputs(**fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    request = encode_chat(parse_chat(orjson.dumps(body)), req_id="r", model="m")
    got = {key: from_value(value) for key, value in request.inputs.items()}
    return {key: value for key, value in got.items() if not key.startswith("messages")}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"structured_outputs": {"json": SCHEMA}}, {"response_format": form(SCHEMA)}),
        ({"structured_outputs": {"json": "{}"}}, {"response_format": form({})}),
        ({"structured_outputs": {"regex": "a+"}}, {"guided_regex": "a+"}),
        (
            {"structured_outputs": {"choice": ["a", 'b "\\\n']}},
            {"guided_grammar": 'root ::= "a" | "b \\"\\\\\\n"'},
        ),
        ({"structured_outputs": {"grammar": "root"}}, {"guided_grammar": "root"}),
        (
            {"structured_outputs": {"json_object": True, "regex": None, "backend": None}},
            {"response_format": {"type": "json_object"}},
        ),
        ({"guided_json": '{"type": "object"}'}, {"response_format": form(SCHEMA)}),
        ({"guided_json": SCHEMA}, {"response_format": form(SCHEMA)}),
        ({"guided_choice": ["é"]}, {"guided_grammar": 'root ::= "é"'}),
        (
            {"response_format": {"type": "text"}, "guided_regex": "a"},
            {"guided_regex": "a"},
        ),
        ({"structured_outputs": None, "guided_json": None, "guided_choice": None}, {}),
    ],
)
def test_every_spelling_of_a_constraint_reaches_the_engine(fields, expected):
    assert inputs(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": "json"}, "structured_outputs"),
        ({"guided_json": "no"}, "guided_json"),
        ({"guided_json": [1]}, "guided_json"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "guided_json": SCHEMA}, "guided_json"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
        ),
    ],
)
def test_what_is_no_constraint_or_more_than_one_is_a_400_at_its_place(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        inputs(**fields)
    assert caught.value.param == param


THINKS, THINKS_NOT = (
    {"thinking": True, "enable_thinking": True},
    {"thinking": False, "enable_thinking": False},
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"thinking": {"type": "enabled"}}, {"chat_template_kwargs": THINKS}),
        ({"thinking": {"type": "disabled"}}, {"chat_template_kwargs": THINKS_NOT}),
        ({"thinking": False}, {"chat_template_kwargs": THINKS_NOT}),
        ({"thinking": {"type": "auto"}}, {}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        (
            {"reasoning_effort": "none"},
            {"reasoning_effort": "none", "chat_template_kwargs": THINKS_NOT},
        ),
        (
            {"thinking": True, "chat_template_kwargs": {"enable_thinking": False, "x": 1}},
            {"chat_template_kwargs": {"thinking": True, "enable_thinking": False, "x": 1}},
        ),
        (
            {"thinking": True, "reasoning_effort": "none", "chat_template_kwargs": {"x": 1}},
            {"reasoning_effort": "none", "chat_template_kwargs": {**THINKS_NOT, "x": 1}},
        ),
    ],
)
def test_every_way_to_switch_thinking_reaches_the_chat_template(fields, expected):
    assert inputs(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": "yes"}, "thinking"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
    ],
)
def test_a_switch_that_says_nothing_or_too_much_is_a_400(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        inputs(**fields)
    assert caught.value.param == param
