"""What clients that do not read cost: bounded memory each, and no delay to the others."""

import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.processes import Served, engine, gateway, wait_until
from tests.support.wire import chat, connected, post, read_to_eof, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

STALLED = 1000
HELD_BYTES = 900 << 10
"""The bound that docs/lifetimes.md states for a stalled stream of messages of 2,000 bytes, Python's own share included."""


def memory_bytes(process: Served) -> int:
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def test_a_thousand_clients_that_do_not_read_hold_a_bounded_memory_and_no_one_up():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    with engine("decoder", "--served-names", "echo") as decoder:
        env = {"ARK_STALLED_WRITE_S": "120"}
        with gateway("proxy", [decoder.port], env=env) as door:
            before = memory_bytes(door)
            sockets = []
            try:
                for _ in range(STALLED):
                    sock = socket.socket()
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.settimeout(20)
                    sock.connect(("127.0.0.1", door.port))
                    sock.sendall(post(chat("count=100000 size=2000 gap_s=3 burst=32")))
                    sockets.append(sock)
                time.sleep(15)
                wait_until(lambda: is_still(door), 90, "memory at rest")
                held = (memory_bytes(door) - before) / STALLED
                print(f"{held / 1024:.0f} KiB a stalled stream")
                assert held < HELD_BYTES
                with socket.create_connection(("127.0.0.1", door.port), timeout=10) as live:
                    live.sendall(post(chat("count=20 gap_s=0.05")))
                    assert b'"finish_reason":"stop"' in read_until(live, b"[DONE]", within_s=10)
            finally:
                for sock in sockets:
                    sock.close()
            wait_until(lambda: status(decoder.port)["busy"] == 0, 10, "the calls' end")


def is_still(process: Served) -> bool:
    """Whether its memory does not grow any more."""
    before = memory_bytes(process)
    time.sleep(3)
    return memory_bytes(process) - before < 2 << 20


BODIES = {
    "brackets": b'{"model":"echo","messages":[' + b",".join([b"[]"] * 10_000_000) + b"]}",
    "within-the-limit": b'{"model":"echo","messages":[{"role":"user","content":['
    + b",".join([b'{"type":"text","text":"x"}'] * 60_000)
    + b"]}]}",
    "one-long-text": chat("x" * 30_000_000),
    "backslashes": chat("\\" * 16_000_000),
    "one-wide-character": chat("😀" + "x" * 30_000_000),
}
HELD_UP_S = 1.0
"""Three times what was measured with both cores busy elsewhere; nine times what it is on idle ones."""


@pytest.mark.parametrize("body", list(BODIES))
def test_the_worst_body_holds_up_no_stream(body: str):
    """Parsed where it was read, the first held all streams up for 20 s."""
    # The engine that gets the body is another one: what it takes to read that is its own.
    with (
        engine("decoder", "--served-names", "echo") as decoder,
        engine("decoder", "--served-names", "other") as other,
    ):
        with gateway("proxy", [decoder.port, other.port]) as door:
            gaps: list[float] = []
            with connected(door.port) as live, ThreadPoolExecutor(1) as beside:
                live.sendall(post(chat("count=100000 gap_s=0.02", model="other")))
                read_until(live, b'"content":"')
                answer = beside.submit(_answer_to, door.port, BODIES[body])
                last = time.monotonic()
                while not answer.done():
                    assert live.recv(65536)
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
            assert b"HTTP/1.1 " in answer.result()
            print(f"{body}: the longest gap {max(gaps) * 1000:.0f} ms of {len(gaps)}")
            assert max(gaps) < HELD_UP_S


def _answer_to(port: int, body: bytes) -> bytes:
    with connected(port) as sock:
        sock.settimeout(60)
        sock.sendall(post(body, headers="connection: close\r\n"))
        return read_to_eof(sock, within_s=60)[:300]
