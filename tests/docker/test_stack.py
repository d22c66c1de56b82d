"""The whole stack in containers, used as its users do: from the project's root, at http://localhost:18080."""

import re
import threading
import time

import pytest

from tests.support.docker_engine import Engine
from tests.support.lane import say
from tests.support.load import DONE, STOP
from tests.support.netns import connect
from tests.support.processes import wait_until
from tests.support.wire import chat, post, read_to_eof, read_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

MODEL = "deepseek-r1-0528"


def get(engine: Engine, path: str) -> bytes:
    with connect(engine.network, "127.0.0.1", 18080) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return read_until(sock, b"}")


def is_ready(engine: Engine) -> bool:
    try:
        return b" 200 " in get(engine, "/readyz")
    except OSError:
        return False


def ask(engine: Engine, tokens: int = 24) -> bytes:
    with connect(engine.network, "127.0.0.1", 18080) as sock:
        body = chat("Name three colours.", model=MODEL, max_tokens=tokens)
        sock.sendall(post(body, headers="connection: close\r\n"))
        return read_to_eof(sock, within_s=60)


def words(answer: bytes) -> str:
    return "".join(re.findall(r'"content":"((?:[^"\\]|\\.)*)"', answer.decode()))


def container(engine: Engine, service: str) -> str:
    return engine.compose("ps", "-q", service).strip()


def inspect(engine: Engine, service: str, template: str) -> str:
    return engine.docker("inspect", "--format", template, container(engine, service)).strip()


@pytest.fixture(scope="module")
def stack(engine: Engine):
    """Everything up, and nothing of it left."""
    began = time.monotonic()
    engine.compose("up", "--wait", "--no-build")
    say(f"docker compose up --wait: {time.monotonic() - began:.1f} s")
    wait_until(lambda: is_ready(engine), within_s=20, what="the gateway's readiness")
    yield engine
    engine.compose("down", "--volumes")


def test_the_gateway_alone_starts_and_answers_503_until_a_decoder_is_there(engine):
    try:
        began = time.monotonic()
        engine.compose("up", "--wait", "--no-build", "api-server")
        say(f"docker compose up api-server: {time.monotonic() - began:.1f} s")
        assert engine.compose("ps", "--services").split() == ["api-server"]
        with connect(engine.network, "127.0.0.1", 18080) as sock:
            sock.sendall(post(chat("x", model=MODEL)))
            answer = read_until(sock, b'"code"')
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer.lower()
        engine.compose("up", "--wait", "--no-build", "decoder")
        wait_until(lambda: is_ready(engine), within_s=20, what="the decoder's discovery")
    finally:
        engine.compose("down", "--volumes")


def test_a_chat_is_streamed(stack):
    answer = ask(stack)
    assert STOP in answer or b'"finish_reason":"length"' in answer
    assert len(words(answer)) > 10
    assert answer.count(b"data: ") > 10
    say(f"streamed from containers: {words(answer)!r}")


def test_it_runs_as_nobody_of_note_on_a_root_that_it_cant_write(stack):
    for service in ("api-server", "decoder", "prefiller"):
        assert stack.compose("exec", service, "id", "-u").strip() == "18080"
        said = stack.compose("exec", service, "touch", "/opt/ark/x", check=False)
        assert "Read-only file system" in said
        first = stack.compose("exec", service, "cat", "/proc/1/cmdline")
        assert "ark-trio" in first.replace("\0", " ")


def test_only_the_gateway_s_port_is_published(stack):
    ports = {
        name: inspect(stack, name, "{{json .NetworkSettings.Ports}}")
        for name in ("decoder", "prefiller")
    }
    assert all("HostPort" not in text for text in ports.values())
    assert '"HostIp":"127.0.0.1","HostPort":"18080"' in inspect(
        stack, "api-server", "{{json .NetworkSettings.Ports}}"
    )


@pytest.mark.parametrize("service", ["api-server", "decoder", "prefiller"])
def test_a_killed_service_is_back_by_itself(stack, service):
    pid = inspect(stack, service, "{{.State.Pid}}")
    # By its process id, as a crash: `docker kill` counts as the operator's will, and nothing restarts it.
    stack_kill(stack, service)
    wait_until(lambda: inspect(stack, service, "{{.State.Pid}}") not in {"0", pid}, within_s=20)
    wait_until(lambda: is_ready(stack), within_s=40, what="readiness")
    wait_until(lambda: b" 200 " in ask(stack, 8)[:20], within_s=30, what="an answer")


def stack_kill(stack: Engine, service: str) -> None:
    """SIGKILL to process 1 of the container, from the engine's own process namespace."""
    pid = inspect(stack, service, "{{.State.Pid}}")
    stack.run_beside("kill", "-KILL", pid)


def test_sigterm_lets_a_stream_finish(stack):
    answers: list[bytes] = []
    sock = connect(stack.network, "127.0.0.1", 18080)
    body = chat("Tell me a long story about a river.", model=MODEL, max_tokens=200, ignore_eos=True)
    sock.sendall(post(body))
    head = read_until(sock, b'"content":"', count=3)

    def read() -> None:
        with sock:
            answers.append(head + read_until(sock, DONE, within_s=60))

    reader = threading.Thread(target=read)
    reader.start()
    stack.compose("stop", "api-server")
    reader.join(60)
    assert b'"finish_reason":"' in answers[0]
    assert b'"error"' not in answers[0]
    assert inspect_all(stack, "api-server") == "0"
    stack.compose("up", "--wait", "--no-build", "api-server")


def inspect_all(stack: Engine, service: str) -> str:
    """The exit code of a container that has ended."""
    found = stack.compose("ps", "-a", "-q", service).strip()
    return stack.docker("inspect", "--format", "{{.State.ExitCode}}", found).strip()


def test_down_leaves_nothing(stack):
    stack.compose("down", "--volumes")
    assert stack.docker("ps", "-a", "-q").strip() == ""
    networks = stack.docker("network", "ls", "--format", "{{.Name}}").split()
    assert set(networks) <= {"host", "none", "bridge"}
    assert stack.docker("volume", "ls", "-q").strip() == ""
