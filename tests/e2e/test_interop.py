"""Our gateway in front of an ARK server on gRPC's own implementation, which shares no code with ours."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import (
    SERVERS,
    Served,
    free_port,
    gateway,
    listens,
    running,
    wait_until,
)
from tests.support.wire import CHAT, chat, connected, post, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

JSON = {"content-type": "application/json"}
PROGRAM = Path(__file__).parents[1] / "support" / "grpcio_decoder.py"


@pytest.fixture(scope="module")
def foreign() -> Iterator[Served]:
    port = free_port()
    with running(["python", str(PROGRAM), str(port)]) as process:
        wait_until(lambda: listens(port), what="the grpcio server")
        yield Served(process.popen, process.output, port)


@pytest.fixture(scope="module", params=SERVERS)
def front(request: pytest.FixtureRequest, foreign: Served) -> Iterator[Served]:
    with gateway(request.param, [foreign.port]) as served:
        yield served


def test_a_stream_and_a_whole_answer_come_through(front: Served):
    streamed = httpx2.post(front.url + CHAT, content=chat("a b c", model="m"), headers=JSON)
    assert streamed.text.count('"content":"') == 4
    assert streamed.text.endswith("data: [DONE]\n\n")
    body = chat("a b c", model="m", stream=False)
    whole = httpx2.post(front.url + CHAT, content=body, headers=JSON).json()
    assert whole["choices"][0]["message"]["content"] == "a b c "
    assert whole["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("INVALID_ARGUMENT", 400),
        ("FAILED_PRECONDITION", 400),
        ("OUT_OF_RANGE", 400),
        ("NOT_FOUND", 404),
        ("ABORTED", 409),
        ("ALREADY_EXISTS", 409),
        ("RESOURCE_EXHAUSTED", 429),
        ("CANCELLED", 502),
        ("UNAUTHENTICATED", 502),
        ("PERMISSION_DENIED", 502),
        ("UNIMPLEMENTED", 501),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
        ("INTERNAL", 500),
        ("UNKNOWN", 500),
        ("DATA_LOSS", 500),
    ],
)
def test_each_status_has_its_http_status(front: Served, name: str, code: int):
    answer = httpx2.post(front.url + CHAT, content=chat(f"fail:{name}", model="m"), headers=JSON)
    assert answer.status_code == code
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    if code not in (400, 404, 409):  # there the engine's own words are the answer
        assert "10.1.2.3" not in answer.text


def test_a_client_that_leaves_cancels_the_call_there(front: Served, foreign: Served):
    before = status(foreign.port)["cancelled"]
    with connected(front.port) as sock:
        sock.sendall(post(chat("a hang", model="m")))
        read_until(sock, b'"content":"hang')
    wait_until(lambda: status(foreign.port)["busy"] == 0, within_s=1, what="the call's end")
    assert status(foreign.port)["cancelled"] == before + 1
