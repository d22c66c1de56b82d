"""The gateway over real sockets, the same promises however it is served: by `ark-trio proxy`, under hypercorn's Trio
worker and, bridged, under its asyncio worker."""

import re
import socket
import subprocess
import time
from contextlib import ExitStack

import openai
import orjson
import pytest

from tests.support.processes import SERVERS, Served, gateway, wait_until
from tests.support.wire import (
    CHAT,
    chat,
    connected,
    post,
    read_to_eof,
    read_until,
    status,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LONG = "count=100000 gap_s=0.02"
FLOOD = "count=1000000 size=2000 burst=16 gap_s=0.001"


def ends(decoder: Served) -> dict[str, int]:
    """How many of the engine's calls ended how, and how many run."""
    told = status(decoder.port)
    return {key: told.get(key, 0) for key in ("cancelled", "finished", "failed", "busy")}


def curl(door: Served, *flags: str, path: str = CHAT) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "-sS", "--max-time", "20", *flags, door.url + path],
        capture_output=True,
        check=False,
        timeout=30,
    )


def test_curl_streams(door: Served):
    body = chat("say hello to me").decode()
    result = curl(door, "-N", "-H", "content-type: application/json", "-d", body)
    assert result.returncode == 0
    *_, last, done = [line for line in result.stdout.decode().split("\n\n") if line]
    assert done == "data: [DONE]"
    assert orjson.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_tokens_arrive_as_they_are_made(door: Served, flag: str):
    body = chat("count=10 gap_s=0.1").decode()
    command = ["curl", "-sSN", flag, "-H", "content-type: application/json", "-d", body]
    with subprocess.Popen([*command, door.url + CHAT], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        times = [time.monotonic() for line in process.stdout if b'"content":"' in line]
        assert process.wait(10) == 0
    assert 0.7 < times[-1] - times[0] < 3


def test_the_sdk_gets_what_it_expects(door: Served):
    client = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
    with client:
        assert [model.id for model in client.models.list()] == ["echo"]
        assert client.models.retrieve("echo").id == "echo"
        whole = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "one two three"}]
        )
        assert whole.choices[0].message.content == "one two three"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 3
        stream = client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": "one two three"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        said = [c.choices[0].delta.content for c in chunks if c.choices]
        assert "".join(word or "" for word in said) == "one two three"
        assert chunks[-1].usage is not None
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(
                model="gpt-0", messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "hi"}], temperature=9
            )
        assert caught.value.param == "temperature"


@pytest.mark.parametrize("chunks", [0, 1, 3])
@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
def test_a_client_that_leaves_a_stream_ends_it_in_the_engine(
    door: Served, decoder: Served, chunks: int, how: str
):
    before = ends(decoder)
    script = LONG if chunks else "first_delay_s=60 count=1"
    with connected(door.port) as sock:
        sock.sendall(post(chat(script)))
        if chunks:
            read_until(sock, b'"content":"', count=chunks + 1)
        else:
            wait_until(lambda: ends(decoder)["busy"] == 1, what="the engine's call")
        if how == "half-closes":
            sock.shutdown(socket.SHUT_WR)
        elif how == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        else:
            sock.close()
        assert_one_more_cancelled(decoder, before)


def test_a_client_that_leaves_while_it_does_not_read_ends_its_call(door: Served, decoder: Served):
    before = ends(decoder)
    with connected(door.port, receive_buffer=4096) as sock:
        sock.sendall(post(chat(FLOOD)))
        read_until(sock, b'"content":"', count=2)
        time.sleep(1.0)  # every buffer on the way fills up
        assert ends(decoder)["busy"] == 1
    assert_one_more_cancelled(decoder, before)


def test_a_client_that_leaves_without_stream_ends_its_call(door: Served, decoder: Served):
    before = ends(decoder)
    with connected(door.port) as sock:
        sock.sendall(post(chat(LONG, stream=False)))
        wait_until(lambda: ends(decoder)["busy"] == 1, what="the engine's call")
    assert_one_more_cancelled(decoder, before)


def test_a_client_that_leaves_over_http2_ends_its_call(door: Served, decoder: Served):
    before = ends(decoder)
    command = ["curl", "-sSN", "--http2-prior-knowledge", "-H", "content-type: application/json"]
    command += ["-d", chat(LONG).decode(), door.url + CHAT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert_one_more_cancelled(decoder, before)


def assert_one_more_cancelled(decoder: Served, before: dict[str, int]) -> None:
    wait_until(lambda: ends(decoder)["busy"] == 0, within_s=2, what="the call's end")
    after = ends(decoder)
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["finished"] == before["finished"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (post(chat("a b c"), headers="connection: close\r\n"), 200),
        (post(chat("a b c", stream=False), headers="connection: close\r\n"), 200),
        (post(b"{", headers="connection: close\r\n"), 400),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 200),
        (b"GET /nope HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
        (b"GET /livez HTTP/1.0\r\nhost: x\r\n\r\n", 200),
    ],
)
def test_connection_close_really_closes(door: Served, request_: bytes, code: int):
    with connected(door.port) as sock:
        sock.sendall(request_)
        answer = read_to_eof(sock, within_s=3)
    assert int(re.match(rb"HTTP/1.1 (\d+)", answer)[1]) == code  # type: ignore[index]


def test_a_connection_serves_one_request_after_another(door: Served):
    with connected(door.port) as sock:
        for i in range(3):
            sock.sendall(post(chat(f"round {i}")))
            assert f'"content":"{i}"'.encode() in read_until(sock, b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_hundred_streams_at_once_are_each_whole(door: Served, decoder: Served):
    sockets = []
    try:
        for i in range(100):
            sock = socket.create_connection(("127.0.0.1", door.port), timeout=30)
            sockets.append(sock)
            sock.sendall(post(chat(f'{{"text": "s{i} x", "count": 40, "gap_s": 0.01}}')))
        for i, sock in enumerate(sockets):
            answer = read_until(sock, b"data: [DONE]", within_s=30).decode()
            said = "".join(re.findall(r'"content":"([^"]*)"', answer))
            assert said.count(f"s{i} ") == 20
    finally:
        for sock in sockets:
            sock.close()
    assert ends(decoder)["busy"] == 0


def test_a_failure_before_the_first_token_has_its_status(door: Served):
    for name, code in [
        ("INVALID_ARGUMENT", 400),
        ("RESOURCE_EXHAUSTED", 429),
        ("UNIMPLEMENTED", 501),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
        ("INTERNAL", 500),
    ]:
        for stream in (True, False):
            body = chat(f"fail_at=0 status={name}", stream=stream).decode()
            result = curl(door, "-i", "-H", "content-type: application/json", "-d", body)
            head, _, error = result.stdout.partition(b"\r\n\r\n")
            assert f"HTTP/1.1 {code}".encode() in head
            assert set(orjson.loads(error)["error"]) == {"message", "type", "param", "code"}


def test_a_failure_in_mid_stream_is_an_error_frame_and_done(door: Served):
    body = chat("count=9 fail_at=3 status=INTERNAL").decode()
    result = curl(door, "-N", "-H", "content-type: application/json", "-d", body)
    *_, error, done = [line for line in result.stdout.decode().split("\n\n") if line]
    assert done == "data: [DONE]"
    assert orjson.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"
    assert b'"finish_reason":"stop"' not in result.stdout


def test_a_stream_longer_than_a_minute_lives(decoder: Served):
    """Side by side, however it is served: it takes a minute."""
    with ExitStack() as stack:
        socks = []
        for server in SERVERS:
            door = stack.enter_context(gateway(server, [decoder.port]))
            socks.append(stack.enter_context(connected(door.port)))
            socks[-1].sendall(post(chat("count=3 gap_s=15.5")))
        began = time.monotonic()
        answers = [read_until(sock, b"data: [DONE]", within_s=100) for sock in socks]
        assert time.monotonic() - began > 60
    for answer in answers:
        assert b": keep-alive\n\n" in answer
        assert b'"finish_reason":"stop"' in answer
