"""Requests made from our own description: none may be a 5xx, every answer is as described."""

import json
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.endpoints import ENDPOINTS
from tests.clients.conftest import MODEL, Stack
from tests.support.conform import expect

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore"),  # their own, not ours to mend
]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="session")
def api(echo: Stack) -> Any:
    return schemathesis.openapi.from_url(f"{echo.door.url}/openapi.json")


OPERATIONS = [(endpoint.path, endpoint.method) for endpoint in ENDPOINTS]


def thinned(body: dict[str, Any], kept: set[str] | None) -> dict[str, Any]:
    """A body that gets further: a model that is served, and with `kept` only these parameters and a plain message.

    With all sixty at once, two always contradict each other.
    """
    if isinstance(body.get("model"), str):
        body = {**body, "model": MODEL}
    if kept is None or "messages" not in body:
        return body
    few = {name: value for name, value in body.items() if name in kept | {"model"}}
    return {**few, "messages": [{"role": "user", "content": "one two three"}]}


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_as_described(api: Any, path: str, method: str):
    seen: Counter[int] = Counter()

    operation = api[path][method]
    cases = operation.as_strategy()
    if method == "post":
        cases |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @given(
        case=cases,
        kept=st.none() | st.sets(st.sampled_from(sorted(PARAMETERS)), max_size=4),
    )
    @settings(
        max_examples=100,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def probe(case: Any, kept: set[str] | None) -> None:
        if isinstance(case.body, dict):
            case.body = thinned(case.body, kept)
        response = case.call(timeout=20)
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        if path in dict(STREAMED) and "text/event-stream" in response.headers["content-type"][0]:
            conforming_stream(response.text, dict(STREAMED)[path])

    probe()
    # Otherwise it was not the endpoint that was tested.
    assert seen[404 if "{" in path else 200] > 0, seen


def conforming_stream(text: str, event: str) -> int:
    """Return how many events a stream has, each as described, the last of them [DONE]."""
    *events, done = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    for each in map(json.loads, events):
        expect("Error" if "error" in each else event, each)
    return len(events)


STREAMED = [
    ("/v1/chat/completions", "ChatCompletionChunk"),
    ("/v1/completions", "Completion"),
]


@pytest.mark.parametrize(("path", "event"), STREAMED)
def test_the_real_model_answers_as_described_streamed_and_whole(real: Stack, path: str, event: str):
    """Few tokens each: what varies is what is asked for, beside each other."""
    operation = schemathesis.openapi.from_url(f"{real.door.url}/openapi.json")[path]["post"]
    said: dict[str, Any] = {"prompt": "one two"}
    if "chat" in path:
        said = {"messages": [{"role": "user", "content": "one two"}]}
    few = {"model": MODEL, "max_tokens": 4, "max_completion_tokens": None, "n": 1, **said}
    seen: Counter[int] = Counter()
    events = 0

    @given(
        case=operation.as_strategy(),
        kept=st.sets(st.sampled_from(sorted(PARAMETERS)), max_size=3),
        stream=st.booleans(),
    )
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def probe(case: Any, kept: set[str], *, stream: bool) -> None:
        nonlocal events
        asked = {name: value for name, value in case.body.items() if name in kept}
        case.body = {**asked, **few, "stream": stream}
        response = case.call(timeout=20)
        seen[response.status_code] += 1
        streamed = "text/event-stream" in response.headers["content-type"][0]
        # It takes an event's schema for that of the event with its name and data, so we look at events ourselves.
        checks = [
            check for check in CHECKS if not (streamed and check is response_schema_conformance)
        ]
        case.validate_response(response, checks=checks)
        if streamed:
            events += conforming_stream(response.text, event)

    probe()
    assert seen[200] > 0, seen
    assert events > 0, seen


def test_an_answer_beside_the_description_would_be_seen(api: Any):
    case = api["/livez"]["get"].Case()
    response = case.call(timeout=20)
    case.validate_response(response, checks=CHECKS)
    response.status_code = 299
    with pytest.raises(FailureGroup):
        case.validate_response(response, checks=CHECKS)
