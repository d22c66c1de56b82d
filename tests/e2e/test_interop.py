"""Our gateway in front of an ARK server on gRPC's own implementation, which shares no code with ours."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def without_control() -> Iterator[Served]:
    """An engine that knows gRPC's health service and nothing of ARK's Control."""
    port = free_port()
    with running(["python", str(PROGRAM), str(port), "health"]) as process:
        wait_until(lambda: listens(port), what="the grpcio server")
        yield Served(process.popen, process.output, port)


def test_engines_without_control_serve_the_models_that_the_settings_say_and_are_watched_by_their_health():
    with without_control() as one, without_control() as other:
        env = {
            "ARK_MODELS": f"m@127.0.0.1:{one.port},n@127.0.0.1:{other.port},both@127.0.0.1:{one.port},"
            f"both@127.0.0.1:{other.port}",
            "ARK_PROBE_S": "0.2",
        }
        with gateway("proxy", [one.port, other.port], env=env) as door:

            def served() -> set[str]:
                return {model["id"] for model in httpx2.get(f"{door.url}/v1/models").json()["data"]}

            def ask(model: str) -> httpx2.Response:
                body = chat("hi", model=model, stream=False)
                return httpx2.post(door.url + CHAT, content=body, headers=JSON)

            def who_answers(model: str) -> str:
                content = ask(model).json()["choices"][0]["message"]["content"]
                return str(content).partition(":")[0]

            wait_until(lambda: served() == {"m", "n", "both"}, 5, "both engines")
            assert [who_answers("m") for _ in range(4)] == [str(one.port)] * 4
            assert [who_answers("n") for _ in range(4)] == [str(other.port)] * 4
            either = {who_answers("both") for _ in range(30)}
            assert either == {str(one.port), str(other.port)}
            assert ask("another").status_code == 404
            one.signal(signal.SIGUSR1)
            wait_until(lambda: served() == {"n", "both"}, 5, "the sick engine's leave")
            sick = ask("m")
            assert (sick.status_code, sick.headers["retry-after"]) == (503, "1")
            assert {who_answers("both") for _ in range(6)} == {str(other.port)}
            one.signal(signal.SIGUSR1)
            wait_until(lambda: served() == {"m", "n", "both"}, 5, "its return")
            assert who_answers("m") == str(one.port)


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
