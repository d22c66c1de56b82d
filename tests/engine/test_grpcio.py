"""gRPC's own implementation on our engines: streams, unary calls, status codes, cancel."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Served, engine

ROOT = Path(__file__).parents[2]


def grpcio(server: Served, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.grpcio_client", str(server.port), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=90)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("echo", marks=pytest.mark.e2e),
        pytest.param("llama", marks=pytest.mark.model),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with engine("decoder", driver=request.param) as served:
        yield served


def test_it_reads_a_stream_to_its_end(server: Served):
    seen = grpcio(server, "stream", "Say hello to Bob, please.", "12")
    assert seen["status"] == "OK"
    assert "Bob" in "".join(seen["contents"])
    assert len(seen["contents"]) > 3


def test_it_reads_status_message_and_codes(server: Served):
    seen = grpcio(server, "stream", "x", "-1") if "llama" in server.log else None
    if seen is None:
        script = '{"fail_at": 0, "status": "INVALID_ARGUMENT", "param": "max_tokens"}'
        seen = grpcio(server, "stream", script)
    assert seen["status"] == "INVALID_ARGUMENT"
    assert seen["details"]
    assert seen["trailers"]["ark-error-param"] == "max_tokens"


def test_its_cancel_ends_the_call(server: Served):
    text = "Tell a very long story." if "llama" in server.log else "count=100 gap_s=0.1"
    before = grpcio(server, "unary")["cancelled"]
    assert grpcio(server, "cancel", text, "2000")["status"] == "CANCELLED"
    end = time.monotonic() + 5
    while (status := grpcio(server, "unary"))["busy"] and time.monotonic() < end:
        pass
    assert (status["busy"], status["cancelled"]) == (0, before + 1)


def test_unary_calls_and_controls_are_answered(server: Served):
    seen = grpcio(server, "unary")
    assert seen["count"] >= 2
    assert seen["models"]
    assert seen["unknown"] == "UNIMPLEMENTED"
