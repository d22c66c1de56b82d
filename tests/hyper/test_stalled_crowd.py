"""A thousand clients that read nothing, and a process that is to end."""

import select
import signal
import socket
import time

import pytest

from tests.hyper.conftest import crowd
from tests.support.processes import Served, gateway, wait_until
from tests.support.wire import chat, post, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


GAP_S = 15
"""Between two bursts: longer than the rest of the test takes after the first."""


def test_a_thousand_stalled_readers_at_sigterm(target: Served):
    """The process ends within its drain limit and a second."""
    env = {"ARK_STALLED_WRITE_S": "60", "ARK_DRAIN_S": "3", "ARK_SETTLE_S": "0"}
    with gateway("proxy", [target.port], env=env) as door:
        with crowd(door, 1000, receive_buffer=2048) as socks:
            for sock in socks:
                # More at once than all buffers on the way take; then the engine is idle, and this test measures our end.
                sock.sendall(post(chat(f"count=1000000 size=20000 burst=6 gap_s={GAP_S}")))
            # The engine's clock beats for all together, so this takes up to one gap.
            wait_until(lambda: answered(socks) == 1000, GAP_S + 30, "a thousand streams")
            time.sleep(2)
            began = time.monotonic()
            door.signal(signal.SIGTERM)
            assert door.wait(20) == 0
            elapsed = time.monotonic() - began
            assert "client_stalled" not in door.log
            assert "connections_cut" in door.log  # they were stalled to the end
            assert elapsed < 3 + 1 * crowding()
            wait_until(lambda: status(target.port)["busy"] == 0, 10, "the end of their calls")


def answered(socks: list[socket.socket]) -> int:
    """Return how many have got something, without taking it."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    return len(poll.poll(0))


def crowding() -> float:
    """How much longer than alone a second of work takes on this machine now."""
    wall, work = time.monotonic(), time.process_time()
    while time.process_time() - work < 0.3:
        pass
    return max(1.0, (time.monotonic() - wall) / 0.3) * 1.2
