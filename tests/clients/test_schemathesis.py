"""Requests made from our own description: none may be a 5xx, every answer is as described."""

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

    probe()
    # Otherwise it was not the endpoint that was tested.
    assert seen[404 if "{" in path else 200] > 0, seen


def test_an_answer_beside_the_description_would_be_seen(api: Any):
    case = api["/livez"]["get"].Case()
    response = case.call(timeout=20)
    case.validate_response(response, checks=CHECKS)
    response.status_code = 299
    with pytest.raises(FailureGroup):
        case.validate_response(response, checks=CHECKS)
