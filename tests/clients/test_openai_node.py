"""openai-node, installed from its lock file, doing what client.mjs tells it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MODEL, Stack

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

HERE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, installed in a folder of its own."""
    for command in ("node", "npm"):
        assert shutil.which(command), f"{command} is missing: apt-get install -y nodejs npm"
    folder = tmp_path_factory.mktemp("node")
    for name in ("client.mjs", "package.json", "package-lock.json", ".npmrc"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        ["npm", "ci"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def run(node: Path, stack: Stack, task: str, *more: str) -> Any:
    command = ["node", "client.mjs", stack.base_url, MODEL, task, *more]
    done = subprocess.run(
        command, cwd=node, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_streaming_helper_collects_the_answer(node: Path, echo: Stack):
    seen = run(node, echo, "stream")
    assert "".join(seen["deltas"]) == seen["content"] == "one two three"
    assert seen["usage"]["total_tokens"] > 0


def test_a_stream_from_the_real_model(node: Path, real: Stack):
    seen = run(node, real, "text")
    assert len(seen["content"]) > 5
    assert seen["finish"] in ("stop", "length")


def test_a_tool_loop(node: Path, echo: Stack):
    assert run(node, echo, "tools") == {
        "finish_reason": "tool_calls",
        "sum": "5",
        "content": "It is 5.",
        "streamed": {"name": "add", "arguments": '{"a":2,"b":3}'},
    }


def test_errors_are_the_sdk_s_own(node: Path, echo: Stack):
    seen = run(node, echo, "errors")
    assert seen["invalid"]["name"] == "BadRequestError"
    assert seen["invalid"]["param"] == "temperature"
    assert (seen["unknown"]["status"], seen["unknown"]["code"]) == (404, "model_not_found")
    assert seen["midstream"]["name"] == "APIError"
    assert seen["midstream"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("kind", "text"), [("echo", "count=1000000 gap_s=0.01"), ("real", "Write a very long story.")]
)
def test_an_abort_in_mid_stream_reaches_the_decoder(
    node: Path, kind: str, text: str, request: pytest.FixtureRequest
):
    stack: Stack = request.getfixturevalue(kind)
    before = stack.cancelled()
    assert run(node, stack, "abort", text) == {"seen": 3, "aborted": True}
    stack.await_cancel(before)
