"""openai-node, installed from its lock file, doing what client.mjs tells it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MODEL, MUST_CALL, Stack

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


def run(node: Path, stack: Stack, task: str, said: str, **more: Any) -> Any:
    command = ["node", "client.mjs", stack.base_url, MODEL, task, said, json.dumps(more)]
    done = subprocess.run(
        command, cwd=node, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_streaming_helper_collects_the_answer(node: Path, stack: Stack):
    seen = run(node, stack, "stream", "one two three")
    assert "".join(seen["deltas"]) == seen["content"]
    assert len(seen["content"]) > 5
    assert seen["finish_reason"] in ("stop", "length")
    assert seen["usage"]["total_tokens"] > 0


def test_reasoning_is_seen_apart_from_the_answer(node: Path, stack: Stack):
    said, more = stack.thought
    seen = run(node, stack, "stream", said, **more)
    assert (seen["reasoning"], seen["content"]) == ("let me see", "Yes.")


def test_a_tool_loop(node: Path, stack: Stack):
    seen = run(node, stack, "tools", stack.call, **MUST_CALL)
    assert seen["finish_reason"] == "tool_calls"
    assert seen["called"]["name"] == "add"
    assert json.loads(seen["called"]["arguments"]).keys() == {"a", "b"}
    assert seen["streamed"] == seen["called"]
    assert seen["content"] == "It is 5." if stack.engine == "echo" else seen["content"]


def test_errors_are_the_sdk_s_own(node: Path, stack: Stack):
    fails = "count=5 fail_at=2 status=INTERNAL" if stack.engine == "echo" else ""
    seen = run(node, stack, "errors", fails)
    assert seen["invalid"]["name"] == "BadRequestError"
    assert seen["invalid"]["param"] == "temperature"
    assert (seen["unknown"]["status"], seen["unknown"]["code"]) == (404, "model_not_found")
    if fails:
        assert seen["midstream"]["name"] == "APIError"
        assert seen["midstream"]["type"] == "server_error"


def test_an_abort_in_mid_stream_reaches_the_decoder(node: Path, stack: Stack):
    before = stack.cancelled()
    assert run(node, stack, "abort", stack.long_text) == {"seen": 3, "aborted": True}
    stack.await_cancel(before)
