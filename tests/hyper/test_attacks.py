"""Attacks on real processes: each has its answer, and the stream of a client beside it goes on."""

import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.hyper.conftest import LIMITS, bystander, crowd
from tests.hyper.test_h1 import POST, REFUSED
from tests.support.processes import Served, gateway, wait_until
from tests.support.wire import CHAT, chat, connected, post, read_to_eof, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FLOOD = "count=1000000 size=2000 burst=16 gap_s=0.001"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
ENHANCE_YOUR_CALM = 11


def drip(socks: list[socket.socket], piece: bytes, seconds: float) -> None:
    """Send a piece over each connection again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sock in socks:
            with suppress(OSError):
                sock.send(piece)
        time.sleep(0.3)


def statuses(socks: list[socket.socket]) -> set[int]:
    """What each was told before its end."""
    found = set()
    for sock in socks:
        data = b""
        with suppress(OSError):
            data = read_to_eof(sock, 5)
        match = re.match(rb"HTTP/1.1 (\d+)", data)
        found.add(int(match[1]) if match else 0)
    return found


def test_slow_heads(attacked: Served):
    with bystander(attacked), crowd(attacked, 200) as socks:
        for sock in socks:
            sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
        drip(socks, b"x-a: 1\r\n", 3)
        assert statuses(socks) == {408}


def test_slow_bodies(attacked: Served, target: Served):
    before = status(target.port)["busy"]
    with bystander(attacked), crowd(attacked, 200) as socks:
        for sock in socks:
            sock.sendall(POST + b"content-length: 100000\r\n\r\n{")
        drip(socks, b" ", 3)
        assert statuses(socks) == {408}
        assert status(target.port)["busy"] <= before + 1


def test_slow_readers(attacked: Served, target: Served):
    with bystander(attacked), crowd(attacked, 50, receive_buffer=2048) as socks:
        for sock in socks:
            sock.sendall(post(chat(FLOOD)))
        wait_until(lambda: status(target.port)["busy"] >= 40, 10, "the flood")
        wait_until(lambda: status(target.port)["busy"] <= 1, 20, "the end of their calls")


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("-H", ["-i", "1", "-x", "24"]),
        ("-B", ["-i", "1", "-s", "8192", "-x", "10", "-f", "application/json", "-t", "POST"]),
        ("-X", ["-w", "1", "-y", "1", "-n", "1", "-z", "1", "-k", "3"]),
    ],
    ids=["slow-headers", "slow-body", "slow-read"],
)
def test_slowhttptest(attacked: Served, mode: str, more: list[str]):
    """The tool that others attack with; more connections than there are places."""
    assert shutil.which("slowhttptest"), "apt-get install slowhttptest"
    path = CHAT if mode == "-B" else "/openapi.json"
    command = ["slowhttptest", mode, "-c", "800", "-r", "200", "-l", "8", "-p", "3", "-v", "1"]
    with bystander(attacked):
        result = subprocess.run(
            [*command, *more, "-u", f"{attacked.url}{path}"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        told = re.sub(rb"\x1b\[[0-9;]*m", b"", result.stdout)
        available = re.findall(rb"service available:\s+(\w+)", told)
        assert available
        assert set(available) == {b"YES"}, told[-2000:]
        with connected(attacked.port) as sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" in read_until(sock, b"\r\n\r\n", within_s=3)


def test_smuggling_and_other_bad_heads(attacked: Served):
    """Each variant of tests/hyper/test_h1.py: one answer, no second request."""
    with bystander(attacked):
        for name, (sent, code) in REFUSED.items():
            with connected(attacked.port) as sock:
                sock.sendall(sent)
                answer = read_to_eof(sock, within_s=5)
            assert answer.startswith(b"HTTP/1.1 %d " % code), (name, answer)
            assert answer.count(b"HTTP/1.1 ") == 1, name
            assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"], name


def h2_request(stream: int, encoder: Encoder, *more: tuple[str, str], end: bool = True) -> bytes:
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/livez"), (":authority", "x")]
    flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
    return bytes(HeadersFrame(stream, encoder.encode([*fields, *more]), flags=flags).serialize())


def goodbye(sock: socket.socket) -> int | None:
    """Read to the end; the code of the GOAWAY in it."""
    data = b""
    with suppress(OSError):
        while more := sock.recv(65536):
            data += more
    at = 0
    while at + 9 <= len(data):
        length, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
        if kind == 7:
            return int.from_bytes(data[at + 13 : at + 17], "big")
        at += 9 + length
    return None


def pour(sock: socket.socket, pieces: Iterator[bytes]) -> None:
    with suppress(OSError):
        for piece in pieces:
            sock.sendall(piece)


def test_rapid_reset(attacked: Served):
    def attack(encoder: Encoder) -> Iterator[bytes]:
        yield PREFACE
        for stream in range(1, 20_000, 2):
            yield h2_request(stream, encoder) + RstStreamFrame(stream, error_code=8).serialize()

    with bystander(attacked), crowd(attacked, 5) as socks:
        for sock in socks:
            pour(sock, attack(Encoder()))
        assert {goodbye(sock) for sock in socks} <= {ENHANCE_YOUR_CALM, None}
        # A reset may overtake what was said last; one that reads along hears it.
        wait_until(lambda: "http2_flood" in attacked.log, 5)


@pytest.mark.parametrize("kind", ["ping", "settings", "continuation"])
def test_floods_of_frames(attacked: Served, kind: str):
    def attack() -> Iterator[bytes]:
        yield PREFACE
        if kind == "continuation":
            yield bytes(HeadersFrame(1, b"").serialize())
        frame = {
            "ping": PingFrame(0, b"12345678"),
            "settings": SettingsFrame(0, settings={4: 65535}),
            "continuation": ContinuationFrame(1, b""),
        }[kind]
        for _ in range(200):
            yield bytes(frame.serialize() * 500)

    with bystander(attacked), crowd(attacked, 5) as socks:
        for sock in socks:
            pour(sock, attack())
        began = time.monotonic()
        for sock in socks:
            goodbye(sock)
        assert time.monotonic() - began < 10  # each is closed


@pytest.mark.parametrize("server", ["proxy", "hypercorn-trio"])
def test_descriptors_run_out(target: Served, server: str):
    """Accepting pauses, the log says so once, streams go on; and then it goes on."""
    with gateway(server, [target.port], env={"ARK_MAX_CONNECTIONS": "100000"}) as door:
        pids = [door.popen.pid, *door.children()]
        with bystander(door):
            for pid in pids:
                used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 140, used + 140))
            with crowd(door, 400):
                time.sleep(2)
            with connected(door.port) as sock:
                sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b"200 " in read_until(sock, b"\r\n\r\n")


@pytest.mark.parametrize("server", ["proxy", "hypercorn-trio"])
def test_no_descriptor_is_left(target: Served, server: str):
    """Below what the door reserves: Trio's accept itself fails, ten times a second; the log says when it ends too."""
    with gateway(server, [target.port]) as door:
        pids = [door.popen.pid, *door.children()]
        with bystander(door):
            old = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
            for pid, (_, hard) in zip(pids, old, strict=True):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, hard))
            with crowd(door, 20) as socks:
                wait_until(lambda: "accept_paused" in door.log, 5, "the line in the log")
                time.sleep(1)
                assert door.log.count("accept_paused") == 1
                assert "Traceback" not in door.log
                for pid, limits in zip(pids, old, strict=True):
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
                socks[-1].sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b"200 " in read_until(socks[-1], b"\r\n\r\n", within_s=5)
            assert (
                "accept_resumed" not in door.log
            )  # it may have been a single one that found a descriptor
            time.sleep(2.2)
            for _ in range(2):
                with connected(door.port) as sock:
                    sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                    read_until(sock, b"\r\n\r\n")
            assert door.log.count("accept_resumed") == 1


IDS = {
    "other-script": "é" * 8,
    "combining": "a" + "\u0301" * 30,
    "right-to-left": "\u202eabc",
    "zero-width": "a\u200bb",
    "surrogate": "\ud800",
    "nul": "a\x00b",
    "half-width": "\uff41",
    "very-long": "a" * 5000,
    "new-line": "a\r\nx-injected: 1",
    "escape": "a\x1b[31mred",
}


@pytest.mark.parametrize("name", IDS)
def test_unicode_traps_in_ids(attacked: Served, name: str):
    """In the header that names a request, in the model's name and in the path: refused or harmless, never passed on."""
    value = IDS[name].encode("utf-8", "surrogatepass")
    with bystander(attacked):
        with connected(attacked.port) as sock:
            sock.sendall(
                b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: "
                + value
                + b"\r\n\r\n"
            )
            head, _, _ = read_to_eof(sock).partition(b"\r\n\r\n")
        told = re.search(rb"\r\nx-request-id: ([^\r]*)", head)
        assert told is None or re.fullmatch(rb"[!-~]{1,128}", told[1])
        assert value not in head
        if name != "surrogate":
            with connected(attacked.port) as sock:
                sock.sendall(post(chat("hi", model=IDS[name]), headers="connection: close\r\n"))
                assert read_to_eof(sock).startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
        with connected(attacked.port) as sock:
            quoted = "".join(f"%{byte:02x}" for byte in value)
            sock.sendall(
                f"GET /v1/models/{quoted} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
            )
            assert read_to_eof(sock).startswith((b"HTTP/1.1 404", b"HTTP/1.1 414", b"HTTP/1.1 400"))


def test_the_limits_are_those_that_were_set():
    """What the attacks above rely on, so that none passes for a limit that is not there."""
    assert set(LIMITS) >= {"ARK_HEAD_S", "ARK_BODY_S", "ARK_STALLED_WRITE_S"}
