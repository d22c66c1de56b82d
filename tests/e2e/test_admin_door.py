"""The door of those who run the gateway, on real sockets: while it serves, while it drains, when it stops."""

import os
import signal
import socket
import time
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import engine, free_port, gateway, running, wait_until
from tests.support.wire import chat, connected, post, read_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PATHS = ("/metrics", "/admin/status")


def test_it_serves_what_the_first_door_does_not_and_on_through_the_drain():
    port = free_port()
    env = {"ARK_ADMIN_BIND": f"127.0.0.1:{port}"}
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port], env=env) as door, connected(door.port) as client:
            for path in PATHS:
                assert httpx2.get(f"{door.url}{path}").status_code == 404
                assert httpx2.get(f"http://127.0.0.1:{port}{path}").status_code == 200
            client.sendall(post(chat("count=100000 gap_s=0.05")))
            read_until(client, b'"content":"')
            door.signal(signal.SIGTERM)

            def drains() -> bool:
                status = httpx2.get(f"http://127.0.0.1:{port}/admin/status").json()
                return [worker["state"] for worker in status["workers"]] == ["draining"]

            wait_until(drains, 10, "the drain")
            assert "ark_draining{" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text
            # Neither who holds a connection there nor who says nothing on one delays the end.
            with socket.create_connection(("127.0.0.1", port)), httpx2.Client() as held:
                held.get(f"http://127.0.0.1:{port}/livez")
                client.close()
                began = time.monotonic()
                assert door.wait(5) == 0
                assert time.monotonic() - began < 3


def test_it_may_be_a_unix_socket(tmp_path: Path):
    path = tmp_path / "admin"
    env = {"ARK_ADMIN_BIND": f"unix:{path}"}
    with gateway("proxy", [free_port()], env=env, ready=False):
        wait_until(path.exists, 5, "the socket")
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://gateway/metrics").status_code == 200
    assert os.path.exists(path)  # noqa: PTH110 (killed here, so it stays; the next start removes it)


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        ("0.0.0.0:1", "admin_bind: 0.0.0.0:1 is open to other hosts"),
        ("192.0.2.1:1", "admin_bind:"),
        ("nonsense", "admin_bind"),
    ],
)
def test_a_bad_address_is_one_line_and_exit_2(bind: str, says: str):
    env = {"ARK_ADMIN_BIND": bind}
    with running(["ark-trio", "proxy", "--bind", f"127.0.0.1:{free_port()}"], env) as process:
        assert process.wait(15) == 2
        assert says in process.log
        assert "Traceback" not in process.log


def test_an_address_that_is_taken_is_one_line_and_exit_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {"ARK_ADMIN_BIND": f"127.0.0.1:{taken.getsockname()[1]}"}
        with running(["ark-trio", "proxy", "--bind", f"127.0.0.1:{free_port()}"], env) as process:
            assert process.wait(15) == 2
            assert "admin_bind: can't listen" in process.log


def test_under_hypercorns_own_command_a_line_says_that_there_is_none():
    env = {"ARK_ADMIN_BIND": f"127.0.0.1:{free_port()}"}
    with gateway("hypercorn-trio", [free_port()], env=env, ready=False) as door:
        wait_until(lambda: "admin_bind_ignored" in door.log, 10, "the line")
        assert httpx2.get(f"{door.url}/metrics").status_code == 404
