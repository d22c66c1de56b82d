"""The description says what is enforced, and what is answered is what it says, by the classes of OpenAI's own SDK too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ark_trio.errors import ArkError, BadBackend, InvalidRequest, Unavailable
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.completion_body import PARAMETERS as COMPLETION_PARAMETERS
from ark_trio.protocol.completion_fold import CompletionFold
from ark_trio.protocol.completion_request import parse_completion
from ark_trio.protocol.completion_stream import CompletionStream
from ark_trio.protocol.endpoints import ENDPOINTS
from ark_trio.protocol.error_body import error_body
from ark_trio.protocol.models import model_list, model_object
from ark_trio.protocol.parameter import Treatment
from ark_trio.protocol.reference import reference_markdown, reference_page, takes
from ark_trio.protocol.schema import Schemas
from ark_trio.protocol.tokenize import detokenize_body, parse_tokenize, tokenize_body
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2
from tests.support.answers import chunks
from tests.support.conform import DESCRIPTION, admits, expect
from tests.support.strategies import JSON, STEPS, VALUES

MADE: Any = {"id": "x-1", "created": 7, "model": "m"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("name", "table"), [("ChatBody", PARAMETERS), ("CompletionBody", COMPLETION_PARAMETERS)]
)
def test_every_parameter_is_described_with_what_becomes_of_it(name, table):
    properties = DESCRIPTION["components"]["schemas"][name]["properties"]
    assert list(properties) == list(table)
    for parameter in table.values():
        assert properties[parameter.name]["description"].startswith(parameter.treatment.value)


def test_every_reference_leads_somewhere_and_every_schema_is_used():
    spelled = orjson.dumps(DESCRIPTION).decode()
    for name in DESCRIPTION["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in spelled
    assert spelled.count('"$ref"') == spelled.count('"$ref":"#/components/schemas/')
    assert DESCRIPTION["openapi"] == "3.1.0"


def kinds(kind: type[ArkError]) -> Iterator[type[ArkError]]:
    for each in kind.__subclasses__():
        if each.__module__ == kind.__module__:
            yield each
            yield from kinds(each)


def test_every_failure_of_a_request_is_described():
    described = DESCRIPTION["paths"]["/v1/chat/completions"]["post"]["responses"]
    before_its_route_is_known = {405, 414, 431}
    statuses = {kind.status for kind in kinds(ArkError)} - before_its_route_is_known
    assert {str(status) for status in statuses} <= set(described)


def test_what_needs_a_key_says_so():
    assert DESCRIPTION["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in DESCRIPTION["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == path.startswith("/v1/")
            assert ("401" in operation["responses"]) == path.startswith("/v1/")


def test_a_type_without_a_schema_is_a_bug_told_at_once():
    with pytest.raises(TypeError):
        Schemas().of(set[int])


GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 2, "top_p": 0, "n": 128, "stop": ["a"], "logit_bias": {"-5": 100}},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
    {"structured_outputs": {"choice": ["a"]}, "thinking": {"type": "enabled"}},
    {"modalities": ["text"], "store": False, "audio": None, "vendor": 1},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:,"}]}]},
    {"messages": [{"role": "assistant", "content": None, "reasoning": "hm"}]},
]
BAD: list[dict[str, Any]] = [
    {"temperature": 2.1},
    {"temperature": "1"},
    {"n": 0},
    {"n": 1.5},
    {"seed": 2**63},
    {"stop": ["a"] * 5},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {"1": 101}},
    {"messages": []},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
    {"messages": [{"role": "user", "content": []}]},
    {"messages": None},
    {"model": ""},
    {"tools": []},
    {"tools": [{"type": "custom"}]},
    {"tool_choice": "some", "tools": [TOOL]},
    {"response_format": {"type": "xml"}},
    {"repetition_penalty": 0},
    {"web_search_options": {}},
    {"store": True},
    {"stream_options": {"include_usage": 1}},
    {"thinking": {"type": "maybe"}},
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_is_described_is_taken(fields):
    assert admits("ChatBody", {**CHAT, **fields})
    parse_chat(orjson.dumps({**CHAT, **fields}))


@pytest.mark.parametrize("fields", BAD)
def test_what_is_not_described_is_refused(fields):
    assert not admits("ChatBody", {**CHAT, **fields})
    with pytest.raises(InvalidRequest):
        parse_chat(orjson.dumps({**CHAT, **fields}))


@given(JSON, st.sampled_from(sorted(set(PARAMETERS) - {"messages"})))
def test_what_is_taken_is_described(value, name):
    # The other way round is not so: what takes two parameters to judge has no place in a schema.
    body = {**CHAT, name: value}
    try:
        parse_chat(orjson.dumps(body))
    except (InvalidRequest, orjson.JSONEncodeError):
        return
    assert admits("ChatBody", orjson.loads(orjson.dumps(body)))


@given(JSON)
def test_any_json_is_tokens_to_make_or_a_400(value):
    for body in (value, {"model": "m", "prompt": value}, {"model": "m", "messages": value}):
        try:
            parse_tokenize(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS))
        except (InvalidRequest, orjson.JSONEncodeError):
            continue


@given(st.lists(STEPS, max_size=4), st.booleans(), st.booleans(), st.booleans())
def test_chat_answers_are_as_described_whatever_the_engine_says(
    steps, usage, continuous, functions
):
    options = {"include_usage": usage, "continuous_usage": continuous, "functions": functions}
    stream = ChatStream(**MADE, n=3, **options)
    fold = ChatFold(**MADE, n=3, functions=functions)
    try:
        body = b"".join(map(stream.feed, steps))
        for each in steps:
            fold.feed(each)
        body += stream.end()
        whole = orjson.dumps(fold.result())
        expect("ChatCompletion", orjson.loads(whole))
        ChatCompletion.model_validate_json(whole, strict=True)
    except BadBackend as error:
        body = stream.fail(error)
    for chunk in chunks(body):
        expect("Error" if "error" in chunk else "ChatCompletionChunk", chunk)
        if "error" not in chunk:
            ChatCompletionChunk.model_validate_json(orjson.dumps(chunk), strict=True)


@given(st.lists(STEPS, max_size=4), st.booleans())
def test_completions_are_as_described_whatever_the_engine_says(steps, usage):
    stream = CompletionStream(**MADE, choices=3, alternatives=1, include_usage=usage)
    fold = CompletionFold(**MADE, n=3, generated=3, alternatives=1)
    try:
        body = b"".join(map(stream.feed, steps)) + stream.end()
        for each in steps:
            fold.feed(each)
        whole = orjson.dumps(fold.result())
        expect("Completion", orjson.loads(whole))
        Completion.model_validate_json(whole, strict=True)
    except BadBackend as error:
        body = stream.fail(error)
    for chunk in chunks(body):
        expect("Error" if "error" in chunk else "Completion", chunk)


@given(
    st.dictionaries(
        st.sampled_from(
            ["choice", "choice.index", "choice.finish_reason", "usage", "cache", "text"]
        )
        | st.sampled_from(["choice.message.content", "tokens", "max_model_len", "count"]),
        VALUES
        | st.fixed_dictionaries(
            {"index": VALUES, "message": st.fixed_dictionaries({"content": VALUES})},
            optional={"finish_reason": VALUES, "logprobs": VALUES},
        ),
        max_size=5,
    )
)
def test_any_outputs_of_an_engine_give_legal_answers_or_its_fault(outputs):
    response = ark_pb2.InferenceResponse()
    for key, value in outputs.items():
        fill_value(response.outputs[key], value)
    stream = ChatStream(**MADE, n=2, include_usage=True)
    try:
        body = stream.feed(ResponseDecoder().feed(response)) + stream.end()
    except BadBackend as error:
        body = stream.fail(error)
    for chunk in chunks(body):
        expect("Error" if "error" in chunk else "ChatCompletionChunk", chunk)
    for name, answer in (("Tokens", tokenize_body), ("Text", detokenize_body)):
        try:
            expect(name, orjson.loads(orjson.dumps(answer(response))))
        except BadBackend:
            continue


@pytest.mark.parametrize(("length", "told"), [(4096, 4096), ("many", None), (True, None)])
def test_a_length_that_is_no_number_is_not_told(length, told):
    response = ark_pb2.InferenceResponse()
    fill_value(response.outputs["tokens"], [1])
    fill_value(response.outputs["max_model_len"], length)
    answer = tokenize_body(response)
    expect("Tokens", answer)
    assert answer["max_model_len"] == told


def test_models_and_errors_are_as_described():
    expect("ModelList", model_list([model_object("m", created=7, max_model_len=9)]))
    expect("Model", model_object("m", created=7))
    for error in (Unavailable("gone"), InvalidRequest("no", param="n", code="c")):
        expect("Error", error_body(error))


def test_the_documentation_is_what_the_code_says_today():
    page = Path(__file__).parents[2] / "docs" / "api.md"
    assert page.read_text(encoding="utf-8").endswith(reference_markdown())


def test_the_reference_names_every_endpoint_parameter_and_error():
    text = reference_markdown()
    page = reference_page("1.2.3")
    for endpoint in ENDPOINTS:
        assert f"## {endpoint.method.upper()} {endpoint.path}\n" in text
        assert f"{endpoint.method.upper()} {endpoint.path}</h2>" in page
    for parameter in [*PARAMETERS.values(), *COMPLETION_PARAMETERS.values()]:
        assert f"\n| `{parameter.name}` | " in text
        assert f"<td><code>{parameter.name}</code></td>" in page
    for error in ArkError.__subclasses__():
        if error.__module__ == ArkError.__module__:
            assert f"| {error.status} | `{error.kind}` |" in text
    assert "ark-trio 1.2.3" in page
    assert "http://" not in page
    assert "https://" not in page


def test_refused_parameters_say_why_in_the_reference():
    refused = [p for p in PARAMETERS.values() if p.treatment is Treatment.REFUSED]
    assert refused
    for parameter in refused:
        assert f"| refused | {parameter.note} |" in reference_markdown()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "any JSON"),
        ({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 5}, "number above 0 to 5"),
        ({"enum": [None]}, "null"),
        ({"enum": [None, ["text"], False]}, '`["text"]` or `false`'),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Tool"}}, "list of `Tool`"),
    ],
)
def test_schemas_are_spelled_in_words(schema, words):
    assert takes(schema) == words


def test_completion_bodies_are_described_too():
    for prompt in ("a", ["a"], [1], [[1], [2]]):
        body = {"model": "m", "prompt": prompt}
        assert admits("CompletionBody", body)
        parse_completion(orjson.dumps(body))
    assert not admits("CompletionBody", {"model": "m", "prompt": [{}]})
