"""Several workers behind one socket: one that dies is replaced, signals reach all, nothing outlives the parent."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import (
    BIN,
    Served,
    engine,
    free_port,
    is_alive,
    is_ready,
    listens,
    running,
    wait_until,
)
from tests.support.wire import chat, connected, post, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

DONE = b"data: [DONE]\n\n"
SLOW = "count=100000 gap_s=0.05"


@contextmanager
def proxy(decoder: Served, **env: str) -> Iterator[Served]:
    port = free_port()
    command = ["ark-trio", "proxy", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    settings = {"ARK_DECODERS": f"127.0.0.1:{decoder.port}", **env}
    with running(command, settings) as process:
        wait_until(lambda: len(process.children()) == 2 and is_ready(port), what="two workers")
        yield Served(process.popen, process.output, port)
        workers = process.children() if process.popen.poll() is None else []
        process.kill()
        wait_until(lambda: not any(map(is_alive, workers)), 5, "the workers' end")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Served]:
    with engine("decoder", "--served-names", "echo") as served:
        yield served


def streams(
    door: Served, count: int, script: str
) -> list[tuple[AbstractContextManager[socket.socket], socket.socket]]:
    """Streams that have begun, one after the other."""
    found: list[tuple[AbstractContextManager[socket.socket], socket.socket]] = []
    for _ in range(count):
        context: AbstractContextManager[socket.socket] = connected(door.port)
        sock = context.__enter__()
        sock.sendall(post(chat(script)))
        read_until(sock, b'"content":"')
        found.append((context, sock))
    return found


def test_a_worker_that_dies_is_replaced_and_the_other_goes_on(decoder: Served):
    with proxy(decoder) as door:
        open_streams = streams(door, 24, "count=60 gap_s=0.05")
        first, second = door.children()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(door.children()) == 2 and first not in door.children(), 5)
        assert second in door.children()
        whole = 0
        for context, sock in open_streams:
            with suppress(OSError):
                whole += b'"finish_reason":"stop"' in read_until(sock, DONE)
            context.__exit__(None, None, None)
        assert 6 <= whole <= 18  # each had about as many
        wait_until(lambda: is_ready(door.port), 5)


def test_a_worker_that_hangs_is_killed_and_replaced(decoder: Served):
    with proxy(decoder) as door:
        hung = door.children()[0]
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: hung not in door.children(), within_s=45, what="the hung worker's end")
        wait_until(lambda: len(door.children()) == 2, within_s=5)
        assert "worker_hangs" in door.log


def test_sigterm_drains_all_workers_and_the_parent_ends_last(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0") as door:
        open_streams = streams(door, 8, "count=30 gap_s=0.05")
        workers = door.children()
        door.signal(signal.SIGTERM)
        for context, sock in open_streams:
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)
            context.__exit__(None, None, None)
        assert door.wait(5) == 0
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize("to", ["parent", "group"])
def test_sigint_ends_all_within_two_seconds(decoder: Served, to: str):
    with proxy(decoder) as door:
        open_streams = streams(door, 8, SLOW)
        if to == "parent":
            door.signal(signal.SIGINT)
        else:
            os.killpg(door.popen.pid, signal.SIGINT)
        for context, sock in open_streams:
            assert b"The gateway is being stopped." in read_until(sock, DONE, within_s=2)
            context.__exit__(None, None, None)
        assert door.wait(2) == 0
        wait_until(lambda: status(decoder.port)["busy"] == 0, 2)


def test_sigterm_to_the_whole_group_is_one_sigterm(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0") as door:
        open_streams = streams(door, 4, "count=30 gap_s=0.05")
        os.killpg(door.popen.pid, signal.SIGTERM)
        for context, sock in open_streams:
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)
            context.__exit__(None, None, None)
        assert door.wait(5) == 0


def test_workers_end_when_their_parent_is_killed(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0", ARK_DRAIN_S="1") as door:
        workers = door.children()
        os.kill(door.popen.pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: not any(map(is_alive, workers)), 5)
        assert time.monotonic() - began < 4


def test_sigterm_while_a_worker_is_missing_starts_no_other(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0", ARK_DRAIN_S="2") as door:
        open_streams = streams(door, 6, SLOW)
        os.kill(door.children()[0], signal.SIGKILL)
        time.sleep(0.15)
        door.signal(signal.SIGTERM)
        assert door.wait(6) == 0
        for context, _ in open_streams:
            context.__exit__(None, None, None)


def test_a_port_that_drains_refuses_connections(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0") as door:
        open_streams = streams(door, 4, "count=60 gap_s=0.05")
        door.signal(signal.SIGTERM)
        wait_until(lambda: not listens(door.port), within_s=2, what="the listener's end")
        for context, sock in open_streams:
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)
            context.__exit__(None, None, None)
        assert door.wait(5) == 0


def test_whichever_worker_is_asked_answers_for_all():
    with engine("decoder", "--served-names", "echo") as decoder, proxy(decoder) as door:
        pids = set(door.children())
        held = streams(door, 4, SLOW)
        try:
            for _ in range(8):  # connections go to either
                status = httpx2.get(f"{door.url}/admin/status").json()
                assert {worker["pid"] for worker in status["workers"]} == pids
                assert status["queue"]["running"] == 4
                assert sum(decoder["running"] for decoder in status["decoders"]) == 4
                assert [stream["model"] for stream in status["streams"]] == ["echo"] * 4
                assert status["queue"]["max_running"] == 4096
                metrics = httpx2.get(f"{door.url}/metrics").text
                assert metrics.count("ark_worker_up{") == 2
                assert metrics.count("ark_num_requests_running{") == 2
        finally:
            for context, _ in held:
                context.__exit__(None, None, None)


def test_a_storm_of_reloads_touches_no_stream_and_hides_no_sigterm(decoder: Served):
    with proxy(decoder, ARK_SETTLE_S="0", ARK_DRAIN_S="20") as door:
        open_streams = streams(door, 6, "count=60 gap_s=0.05")
        for number in range(1000):
            door.signal(signal.SIGHUP)
            if number % 10 == 0:
                time.sleep(0.002)
        door.signal(signal.SIGTERM)
        for context, sock in open_streams:
            assert b'"finish_reason":"stop"' in read_until(sock, DONE)
            context.__exit__(None, None, None)
        assert door.wait(10) == 0
        assert "settings_reloaded" in door.log
        assert "reload_refused" not in door.log


def test_all_workers_together_keep_to_the_limits_of_requests(decoder: Served):
    """An odd number of places: none more than that, whichever workers the kernel gives the connections to."""
    with proxy(decoder, ARK_MAX_REQUESTS="3", ARK_MAX_WAITING="1", ARK_SETTLE_S="0") as door:
        queue = httpx2.get(f"{door.url}/admin/status").json()["queue"]
        assert (queue["max_running"], queue["max_waiting"]) == (3, 1)
        before = status(decoder.port)["busy"]
        with ExitStack() as stack:
            for _ in range(24):
                sock = stack.enter_context(connected(door.port))
                sock.sendall(post(chat(SLOW)))
            wait_until(lambda: status(decoder.port)["busy"] - before == 3, 5, "all places")
            time.sleep(0.3)
            assert status(decoder.port)["busy"] - before == 3
            queue = httpx2.get(f"{door.url}/admin/status").json()["queue"]
            assert (queue["running"], queue["waiting"]) == (3, 1)


def test_a_worker_that_hangs_is_told_of_and_hides_no_other():
    with engine("decoder", "--served-names", "echo") as decoder, proxy(decoder) as door:
        hung, other = door.children()
        os.kill(hung, signal.SIGSTOP)
        try:
            # The kernel may give a connection to the hung one: then nobody answers it.
            status, metrics = _asked(door, "/admin/status"), _asked(door, "/metrics")
            states = {
                worker.get("pid"): worker["state"] for worker in json.loads(status)["workers"]
            }
            assert states == {None: "silent", other: "serving"}
            assert len(re.findall(r"^ark_worker_up\{.*\} 0.0$", metrics, re.MULTILINE)) == 1
        finally:
            os.kill(hung, signal.SIGCONT)
        wait_until(lambda: "silent" not in _asked(door, "/admin/status"), 5, "its return")


def _asked(door: Served, path: str) -> str:
    for _ in range(20):
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{door.url}{path}", timeout=3).text
    raise TimeoutError(path)


def test_a_worker_that_takes_a_dead_ones_place_is_asked_too():
    with engine("decoder", "--served-names", "echo") as decoder, proxy(decoder) as door:
        os.kill(door.children()[0], signal.SIGKILL)

        def all_serve() -> bool:
            workers = json.loads(_asked(door, "/admin/status"))["workers"]
            return [worker["state"] for worker in workers] == ["serving"] * 2

        wait_until(all_serve, 10, "two workers")


def _sibling_sockets() -> set[str]:
    words = Path("/proc/net/unix").read_text().split()
    return {word for word in words if word.startswith("@ark-trio-")}


def test_nobody_else_is_answered_by_a_worker():
    """The sockets' names are no secret on a host; what counts is whose process asks."""
    before = _sibling_sockets()
    with engine("decoder", "--served-names", "echo") as decoder, proxy(decoder):
        name = "\0" + min(_sibling_sockets() - before).removeprefix("@")

        def ask_as(uid: int) -> bytes:
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                with suppress(OSError):
                    if uid:
                        os.setuid(uid)
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.settimeout(3)
                        sock.connect(name)
                        sock.sendall(b"status\n")
                        theirs.sendall(sock.recv(10) or b"-")
                os._exit(0)
            theirs.close()
            os.waitpid(pid, 0)
            with ours:
                ours.settimeout(1)
                return ours.recv(10)

        assert ask_as(os.geteuid()).startswith(b"{")
        if os.geteuid() == 0:
            assert not ask_as(65534).startswith(b"{")


def test_workers_count_a_key_s_requests_as_one(decoder: Served, tmp_path: Path):
    """Whichever worker is asked, and also when one that had taken some has died."""
    keys = tmp_path / "keys"
    made = subprocess.run(
        [BIN / "ark-trio", "keys", "add", "ann", "--requests-per-minute", "5", "--json"],
        env={**os.environ, "ARK_KEYS_FILE": str(keys)},
        capture_output=True,
        check=True,
    )
    key = json.loads(made.stdout)["key"]
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with proxy(decoder, ARK_KEYS_FILE=str(keys)) as door:

        def ask() -> httpx2.Response:
            # A connection each, so that the kernel spreads them.
            return httpx2.post(
                f"{door.url}/v1/chat/completions", content=chat("", stream=False), headers=headers
            )

        answers = [ask() for _ in range(9)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 4
        remaining = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
        assert remaining[:5] == list(range(4, -1, -1))
        first = door.children()[0]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(door.children()) == 2 and first not in door.children(), 5)
        wait_until(lambda: is_ready(door.port), 5)
        assert {ask().status_code for _ in range(6)} == {429}
