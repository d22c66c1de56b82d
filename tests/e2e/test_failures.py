"""What happens when a part dies, and when the gateway is told to stop. Each test has its own processes."""

import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import orjson
import pytest

from tests.support.processes import (
    SERVERS,
    engine,
    free_port,
    gateway,
    is_ready,
    running,
    wait_until,
)
from tests.support.wire import CHAT, chat, connected, post, read_to_eof, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SLOW = "count=100000 gap_s=0.05"
DONE = b"data: [DONE]\n\n"


def last_error(answer: bytes) -> dict[str, object]:
    frames = re.findall(rb"data: (\{.*\})\n\n", answer)
    error: dict[str, object] = orjson.loads(frames[-1])["error"]
    return error


@pytest.mark.parametrize("server", SERVERS)
def test_a_decoder_killed_in_mid_stream_is_told_and_back_again(server: str):
    port = free_port()
    with engine("decoder", "--served-names", "echo", port=port) as decoder:
        with gateway(server, [port]) as door:
            with connected(door.port) as sock:
                sock.sendall(post(chat(SLOW)))
                read_until(sock, b'"content":"', count=3)
                decoder.kill()
                answer = read_until(sock, DONE, within_s=3)
            assert last_error(answer)["type"] == "server_error"
            assert b'"finish_reason":"stop"' not in answer
            began = time.monotonic()
            away = httpx2.post(door.url + CHAT, content=chat("a"), headers=JSON)
            assert time.monotonic() - began < 1
            assert (away.status_code, away.headers["retry-after"]) == (503, "1")
            assert httpx2.get(door.url + "/readyz").status_code == 503
            with engine("decoder", "--served-names", "echo", port=port):
                wait_until(lambda: is_ready(door.port), within_s=5, what="the decoder's return")
                back = httpx2.post(door.url + CHAT, content=chat("a"), headers=JSON)
                assert b"[DONE]" in back.content


JSON = {"content-type": "application/json"}


def test_a_gateway_without_decoder_starts_and_says_so():
    port = free_port()
    with gateway("proxy", [port], ready=False) as door:
        answer = httpx2.post(door.url + CHAT, content=chat("a"), headers=JSON)
        assert answer.status_code == 503
        assert str(port) not in answer.text
        assert httpx2.get(door.url + "/livez").status_code == 200


def test_sigterm_lets_streams_finish_and_refuses_new_ones():
    with engine("decoder", "--served-names", "echo") as decoder:
        env = {"ARK_SETTLE_S": "0"}
        with gateway("proxy", [decoder.port], env=env) as door, connected(door.port) as sock:
            sock.sendall(post(chat("count=20 gap_s=0.1")))
            read_until(sock, b'"content":"', count=2)
            door.signal(signal.SIGTERM)
            wait_until(lambda: refused(door.port), within_s=1, what="the listener's end")
            answer = read_until(sock, DONE, within_s=5)
            assert b'"finish_reason":"stop"' in answer
            assert door.wait(3) == 0


def test_until_load_balancers_have_noticed_new_requests_are_still_served():
    with engine("decoder", "--served-names", "echo") as decoder:
        env = {"ARK_SETTLE_S": "1.5"}
        with gateway("proxy", [decoder.port], env=env) as door, connected(door.port) as sock:
            sock.sendall(post(chat("count=30 gap_s=0.1")))
            read_until(sock, b'"content":"', count=2)
            door.signal(signal.SIGTERM)
            wait_until(lambda: not is_ready(door.port), within_s=1, what="/readyz")
            late = httpx2.post(door.url + CHAT, content=chat("a b"), headers=JSON)
            assert late.text.endswith("data: [DONE]\n\n")
            wait_until(lambda: refused(door.port), within_s=3, what="the listener's end")
            assert b'"finish_reason":"stop"' in read_until(sock, DONE, within_s=5)
            assert door.wait(3) == 0


def test_sigterm_when_idle_ends_at_once():
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port]) as door, connected(door.port) as idle:
            idle.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            read_until(idle, b'"ok"}')
            door.signal(signal.SIGTERM)
            assert door.wait(1.5) == 0
            assert read_to_eof(idle) == b""


def test_what_outlasts_the_drain_ends_with_an_error_frame():
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway(
            "proxy", [decoder.port], env={"ARK_SETTLE_S": "0", "ARK_DRAIN_S": "1"}
        ) as door:
            with connected(door.port) as sock:
                sock.sendall(post(chat(SLOW)))
                read_until(sock, b'"content":"', count=2)
                door.signal(signal.SIGTERM)
                answer = read_until(sock, DONE, within_s=4)
            assert last_error(answer)["message"] == "The gateway is being stopped."
            assert door.wait(3) == 0
        wait_until(lambda: status(decoder.port)["busy"] == 0, within_s=1, what="the engine's end")


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_sigint_or_a_second_sigterm_ends_within_two_seconds(numbers: list[int]):
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port]) as door, connected(door.port) as sock:
            sock.sendall(post(chat(SLOW)))
            read_until(sock, b'"content":"', count=2)
            for number in numbers:
                door.signal(number)
                time.sleep(0.1)
            answer = read_until(sock, DONE, within_s=2)
            assert last_error(answer)["message"] == "The gateway is being stopped."
            assert door.wait(2) == 0


def test_sighup_takes_new_decoders_and_touches_no_stream(tmp_path: Path):
    config = tmp_path / "ark.toml"
    with (
        engine("decoder", "--served-names", "one") as one,
        engine("decoder", "--served-names", "two") as two,
    ):
        config.write_text(f'decoders = ["127.0.0.1:{one.port}"]\n')
        port = free_port()
        command = ["ark-trio", "proxy", "--bind", f"127.0.0.1:{port}", "--config", str(config)]
        with running(command) as door, connected(port_ready(port)) as sock:
            sock.sendall(post(chat("count=40 gap_s=0.05", model="one")))
            read_until(sock, b'"content":"', count=2)
            config.write_text("decoders = 7\n")
            door.signal(signal.SIGHUP)
            wait_until(lambda: "reload_refused" in door.log, within_s=2)
            assert serves(port) == ["one"]
            config.write_text(f'decoders = ["127.0.0.1:{two.port}"]\n')
            door.signal(signal.SIGHUP)
            wait_until(lambda: serves(port) == ["two"], within_s=3, what="the new decoder")
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)


def port_ready(port: int) -> int:
    wait_until(lambda: is_ready(port))
    return port


def serves(port: int) -> list[str]:
    models = httpx2.get(f"http://127.0.0.1:{port}/v1/models").json()["data"]
    return [model["id"] for model in models]


def test_a_client_that_stops_reading_is_dropped_and_frees_its_call():
    with engine("decoder", "--served-names", "echo") as decoder:
        env = {"ARK_STALLED_WRITE_S": "2"}
        with gateway("proxy", [decoder.port], env=env) as door:
            with connected(door.port, receive_buffer=4096) as sock:
                sock.sendall(post(chat("count=1000000 size=2000 burst=16 gap_s=0.001")))
                read_until(sock, b'"content":"')
                time.sleep(1)
                assert status(decoder.port)["busy"] == 1
                wait_until(
                    lambda: status(decoder.port)["busy"] == 0, within_s=6, what="the call's end"
                )


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(["ark-trio", "proxy", "--bind", f"127.0.0.1:{port}"]) as process:
            assert process.wait(10) != 0
            assert f"127.0.0.1:{port}" in process.log
            assert "Traceback" not in process.log


def test_a_unix_socket_serves_and_is_removed(tmp_path: Path):
    path = tmp_path / "ark.sock"
    with engine("decoder", "--served-names", "echo") as decoder:
        env = {"ARK_DECODERS": f"127.0.0.1:{decoder.port}"}
        with running(["ark-trio", "proxy", "--bind", f"unix:{path}"], env) as process:
            wait_until(path.exists)
            with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
                wait_until(lambda: client.get("http://x/readyz").status_code == 200)
                answer = client.post("http://x" + CHAT, content=chat("a b"), headers=JSON)
                assert b"[DONE]" in answer.content
            process.signal(signal.SIGTERM)
            assert process.wait(3) == 0
            assert not path.exists()


@pytest.mark.parametrize("server", SERVERS)
def test_a_gateway_stops_cleanly_however_it_is_served(server: str):
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway(server, [decoder.port]) as door:
            door.signal(signal.SIGTERM)
            assert door.wait(6) in (0, -signal.SIGTERM)
            assert "Traceback" not in door.log


def test_nothing_is_left_after_many_disconnects():
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port]) as door:
            descriptors = Path(f"/proc/{door.popen.pid}/fd")
            leave_one(door.port)
            wait_until(lambda: status(decoder.port)["busy"] == 0, within_s=2)
            before = len(list(descriptors.iterdir()))
            threads = [threading.Thread(target=leave_one, args=(door.port,)) for _ in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            wait_until(lambda: status(decoder.port)["busy"] == 0, within_s=3, what="the calls' end")
            wait_until(lambda: len(list(descriptors.iterdir())) <= before, 3, "the sockets' end")


def leave_one(port: int) -> None:
    with connected(port) as sock:
        sock.sendall(post(chat(SLOW)))
        read_until(sock, b'"content":"', count=2)


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("server", ["hypercorn-trio", "hypercorn-asyncio"])
def test_a_bad_setting_ends_hypercorn_with_one_clear_line(server: str):
    worker = ["-k", "trio"] if server == "hypercorn-trio" else []
    bind = f"127.0.0.1:{free_port()}"
    command = ["hypercorn", *worker, "-b", bind, "ark_trio.app:app"]
    with running(command, {"ARK_DECODERS": "bad:port"}) as process:
        process.wait(10)  # the worker's code is 2; hypercorn 0.18 forgets it and ends with 0
        assert "Traceback" not in process.log
        (line,) = [line for line in process.log.splitlines() if line]
        assert "ARK_DECODERS" in line


def test_hypercorns_own_command_ends_despite_a_client_that_does_not_read():
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("hypercorn-trio", [decoder.port]) as door:
            with connected(door.port, receive_buffer=4096) as sock:
                sock.sendall(post(chat("count=1000000 size=2000 burst=16 gap_s=0.001")))
                read_until(sock, b'"content":"')
                time.sleep(1)
                door.signal(signal.SIGINT)
                assert door.wait(8) == 0


@pytest.mark.parametrize("server", ["proxy", "hypercorn-trio"])
def test_no_request_ends_the_server(server: str):
    """Of hypercorn 0.18's faults these two end its Trio worker; a bystander's stream goes on."""
    upgrade = (
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    attacks = [
        upgrade + b"\xff" * 64,
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\4\4\0\0\0\0\0\0\0\0\0" + b"\xff" * 200,
        b"\x16\x03\x01\x02\x00\x01" * 50,
    ]
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway(server, [decoder.port]) as door, connected(door.port) as bystander:
            bystander.sendall(post(chat("count=40 gap_s=0.1")))
            read_until(bystander, b'"content":"')
            for attack in attacks:
                with connected(door.port) as sock:
                    sock.sendall(attack)
                    sock.settimeout(1)
                    with suppress(OSError):
                        sock.recv(65536)
            assert b'"finish_reason":"stop"' in read_until(bystander, DONE)
            assert is_ready(door.port)
