"""hypercorn's own command keeps the promises too, its asyncio worker included."""

import subprocess
import time

import pytest

from tests.support.processes import BIN, Served, free_port, gateway, wait_until
from tests.support.wire import chat, connected, post, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

SILENT = "first_delay_s=60 count=1"
FLOOD = "count=1000000 size=2000 burst=16 gap_s=0.001"
WORKERS = ["hypercorn-trio", "hypercorn-asyncio"]


@pytest.fixture(scope="module", params=WORKERS)
def commanded(request: pytest.FixtureRequest, decoder: Served):
    env = {"ARK_STALLED_WRITE_S": "2", "ARK_MAX_CONNECTIONS": "50", "ARK_HEAD_S": "1"}
    with gateway(request.param, [decoder.port], env=env) as served:
        yield served
        assert "connection_crashed" not in served.log


def test_a_pipelined_request_hides_no_disconnect(commanded: Served, decoder: Served):
    with connected(commanded.port) as sock:
        sock.sendall(post(chat(SILENT)) + post(chat("next")))
        wait_until(lambda: status(decoder.port)["busy"] == 1, what="the engine's call")
    wait_until(lambda: status(decoder.port)["busy"] == 0, 2, "the call's end")


def test_a_client_that_stops_reading_is_dropped(commanded: Served, decoder: Served):
    with connected(commanded.port, receive_buffer=2048) as sock:
        sock.sendall(post(chat(FLOOD)))
        read_until(sock, b'"content":"')
        wait_until(lambda: status(decoder.port)["busy"] == 0, 15, "the call's end")
        assert "client_stalled" in commanded.log


def test_pipelining_without_end_is_bounded(commanded: Served, decoder: Served):
    with connected(commanded.port) as sock:
        sock.sendall(post(chat(SILENT)))
        with pytest.raises(OSError, match=r"reset|pipe|timed out"):
            sock.sendall(post(chat("next")) * 500_000)
    wait_until(lambda: status(decoder.port)["busy"] == 0, 10, "the call's end")


def test_the_settings_limits_hold(commanded: Served):
    with connected(commanded.port) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\n")
        began = time.monotonic()
        assert b" 408 " in read_until(sock, b"\r\n\r\n")
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("worker", ["trio", "asyncio"])
def test_a_bad_setting_ends_the_command_with_2_where_it_has_no_workers(worker: str):
    """With workers, hypercorn forgets the code with which one ended."""
    command = [str(BIN / "hypercorn"), "-w", "0", "-k", worker, "-b", f"127.0.0.1:{free_port()}"]
    result = subprocess.run(
        [*command, "ark_trio.app:app"],
        env={"ARK_MAX_CONNECTIONS": "many", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "max_connections" in result.stderr
    assert "Traceback" not in result.stderr
