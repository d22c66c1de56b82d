"""Several decoders as real processes, of which one is killed, hangs, is slow or lies; and names that change."""

import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.dns import name_server
from tests.support.odd_decoder import SLOW_S
from tests.support.processes import (
    Process,
    Served,
    engine,
    free_port,
    gateway,
    is_ready,
    running,
    wait_until,
)
from tests.support.wire import CHAT, chat, connected, post, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
QUICK = {"ARK_PROBE_S": "0.3", "ARK_PROBE_TIMEOUT_S": "0.5", "ARK_CONNECT_S": "1"}
PINGS = {"ARK_GRPC_PING_S": "1", "ARK_GRPC_PING_TIMEOUT_S": "1"}
ROUND_ROBIN = {"ARK_FLEET_POLICY": "round_robin"}


@contextmanager
def echoes(count: int = 3) -> Iterator[list[Served]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(engine("decoder", "--served-names", "echo")) for _ in range(count)
        ]


@contextmanager
def odd(kind: str) -> Iterator[Served]:
    """A decoder of `tests/support/odd_decoder.py`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.odd_decoder", str(port), kind, "echo"]
    with running(command) as process:
        wait_until(lambda: reached("127.0.0.1", port), what=kind)
        yield Served(process.popen, process.output, port)


def reached(host: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex((host, port)) == 0


def ports(decoders: Sequence[Served]) -> list[int]:
    return [decoder.port for decoder in decoders]


def all_ready(door: Served, count: int) -> None:
    wait_until(lambda: door.log.count('"ready":true') >= count, within_s=10, what="the decoders")


def ask(door: Served, content: str = "a b c", within_s: float = 30) -> httpx2.Response:
    return httpx2.post(door.url + CHAT, content=chat(content), headers=JSON, timeout=within_s)


def good(answer: httpx2.Response) -> bool:
    return answer.status_code == 200 and '"finish_reason":"stop"' in answer.text


LOGGED = {"ARK_LOG_FORMAT": "json"}


def test_of_a_killed_decoder_only_the_streams_it_had_begun_are_lost():
    with echoes() as decoders, gateway("proxy", ports(decoders), env=ROUND_ROBIN | LOGGED) as door:
        all_ready(door, 3)
        with ThreadPoolExecutor(24) as clients:
            begun = [clients.submit(ask, door, "count=30 gap_s=0.1") for _ in range(12)]
            wait_until(lambda: sum(status(d.port)["busy"] for d in decoders) == 12)
            time.sleep(0.5)
            decoders[0].kill()
            after = [clients.submit(ask, door) for _ in range(12)]
            assert all(good(answer.result()) for answer in after)
            lost = [answer.result() for answer in begun if not good(answer.result())]
        assert len(lost) == 4
        assert all(
            '"error"' in answer.text and answer.text.endswith("[DONE]\n\n") for answer in lost
        )


def test_a_decoder_that_hangs_loses_what_it_had_begun_and_nothing_else():
    env = QUICK | PINGS | ROUND_ROBIN | LOGGED
    with echoes() as decoders, gateway("proxy", ports(decoders), env=env) as door:
        all_ready(door, 3)
        hung = decoders[1]
        with ThreadPoolExecutor(24) as clients:
            begun = [clients.submit(ask, door, "count=80 gap_s=0.1") for _ in range(3)]
            wait_until(lambda: all(status(d.port)["busy"] == 1 for d in decoders))
            time.sleep(0.5)
            hung.signal(signal.SIGSTOP)
            try:
                # Those that are given to it before it is known to hang wait for its pings, then go elsewhere.
                after = [clients.submit(ask, door) for _ in range(9)]
                assert all(good(answer.result()) for answer in after)
                assert sum(good(answer.result()) for answer in begun) == 2
                began = time.monotonic()
                assert all(good(ask(door)) for _ in range(9))
                assert time.monotonic() - began < 1
            finally:
                hung.signal(signal.SIGCONT)
        all_ready(door, 4)
        assert all(good(ask(door)) for _ in range(6))


def test_a_slow_decoder_gets_little():
    with echoes(2) as decoders, odd("slow") as slow:
        env = {"ARK_FLEET_POLICY": "power_of_two"} | LOGGED
        with gateway("proxy", [slow.port, *ports(decoders)], env=env) as door:
            all_ready(door, 3)
            took = []
            for _ in range(45):
                began = time.monotonic()
                assert good(ask(door))
                took.append(time.monotonic() - began)
    assert sum(seconds > SLOW_S for seconds in took) <= 5


def test_a_decoder_that_refuses_all_is_not_noticed_and_left_out():
    with echoes(2) as decoders, odd("refusing") as liar:
        with gateway("proxy", [liar.port, *ports(decoders)], env=ROUND_ROBIN | LOGGED) as door:
            all_ready(door, 3)
            assert all(good(ask(door)) for _ in range(30))
            assert door.log.count("request_retried") == 5
            assert "decoder_ejected" in door.log


def test_a_decoder_that_breaks_answers_off_is_left_out_after_a_few():
    with echoes(2) as decoders, odd("breaking") as liar:
        with gateway("proxy", [liar.port, *ports(decoders)], env=ROUND_ROBIN | LOGGED) as door:
            all_ready(door, 3)
            answers = [ask(door) for _ in range(45)]
            assert sum(not good(answer) for answer in answers) == 5


def test_all_down_is_said_at_once():
    with echoes() as decoders, gateway("proxy", ports(decoders), env=QUICK | LOGGED) as door:
        all_ready(door, 3)
        for decoder in decoders:
            decoder.kill()
        wait_until(lambda: not is_ready(door.port), within_s=5)
        with httpx2.Client(base_url=door.url, headers=JSON) as client:
            took = []
            for _ in range(50):
                began = time.monotonic()
                answer = client.post(CHAT, content=chat("a"))
                took.append(time.monotonic() - began)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        # Of the whole exchange, on a machine that does other things too.
        assert sorted(took)[len(took) // 2] < 0.005


@contextmanager
def echo_at(host: str, port: int, name: str) -> Iterator[Process]:
    command = ["ark-trio", "decoder", "--engine", "echo", "--served-names", f"{name},echo"]
    with running([*command, "--grpc-bind", f"{host}:{port}"]) as process:
        wait_until(lambda: reached(host, port), what=host)
        yield process


def serves(door: Served) -> set[str]:
    return {model["id"] for model in httpx2.get(door.url + "/v1/models").json()["data"]}


def test_decoders_come_and_go_by_dns_and_no_stream_is_touched(tmp_path: Path):
    port = free_port()
    with ExitStack() as stack:
        for number in (1, 2, 3):
            stack.enter_context(echo_at(f"127.0.0.{number}", port, f"d{number}"))
        names = stack.enter_context(name_server(tmp_path))
        names.say(decoders=["127.0.0.1", "127.0.0.2"])
        env = {"ARK_DECODERS": f"decoders.test:{port}", "ARK_DNS_SERVERS": names.address} | LOGGED
        door = stack.enter_context(gateway("proxy", [], env=env))
        wait_until(lambda: serves(door) == {"d1", "d2", "echo"}, within_s=5, what="two decoders")
        with connected(door.port) as sock:
            sock.sendall(post(chat("count=70 gap_s=0.1", model="d1")))
            read_until(sock, b'"content":"')
            names.say(decoders=["127.0.0.2", "127.0.0.3"])
            wait_until(lambda: serves(door) == {"d2", "d3", "echo"}, within_s=5, what="the change")
            # It drains: what runs there goes on, what is new does not go there.
            assert "d1" not in serves(door)
            names.process.kill()
            time.sleep(2.5)
            assert serves(door) == {"d2", "d3", "echo"}
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)
        assert "name_lookup_failed" in door.log
        again = stack.enter_context(name_server(tmp_path, names.port))
        again.say(decoders=["127.0.0.1"])
        wait_until(lambda: serves(door) == {"d1", "echo"}, within_s=40, what="the name's return")
        assert re.search(r'"decoder_struck_off".*127\.0\.0\.2|127\.0\.0\.2.*struck_off', door.log)
