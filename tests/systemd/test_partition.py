"""A decoder's host vanishes behind a cut link, without a word: no RST, no FIN, nothing."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.netlab import NAMESPACES, Link, linked
from tests.support.netns import connect
from tests.support.processes import BIN, Process, running, wait_until
from tests.support.wire import chat, post, read_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(120)]

HERE, THERE = "10.78.0.1", "10.78.0.2"
DONE = b"data: [DONE]\n\n"
LOOKS = {"ARK_PROBE_S": "0.5", "ARK_PROBE_TIMEOUT_S": "0.5", "ARK_CONNECT_S": "1"}


@pytest.fixture
def link() -> Iterator[Link]:
    if not Path("/dev/net/tun").exists():
        pytest.fail("this machine lacks: kernel: TUN devices (CONFIG_TUN)")
    with linked((HERE, THERE)) as made:
        yield made


@contextmanager
def inside(namespace: str, env: Mapping[str, str], *command: str) -> Iterator[Process]:
    program = [str(BIN / command[0]), *command[1:]]
    with running(["/usr/sbin/ip", "netns", "exec", namespace, *program], env) as process:
        yield process


@contextmanager
def decoder(namespace: str, host: str) -> Iterator[Process]:
    flags = ["--engine", "echo", "--served-names", "echo", "--grpc-bind", f"{host}:62000"]
    with inside(namespace, {}, "ark-trio", "decoder", *flags) as process:
        wait_until(lambda: "engine_ready" in process.log, what="the decoder")
        yield process


@contextmanager
def two_hosts(link: Link, env: Mapping[str, str]) -> Iterator[Process]:
    """A gateway and a decoder here, a decoder there."""
    here, there = link.names
    flags = ["--decoders", f"127.0.0.1:62000,{THERE}:62000", "--fleet-policy", "round_robin"]
    with decoder(here, "127.0.0.1"), decoder(there, THERE):
        with inside(here, {**LOOKS, **env}, "ark-trio", "proxy", *flags) as gateway:
            wait_until(lambda: ready(gateway) == 2, within_s=10, what="both decoders")
            yield gateway


def ready(gateway: Process) -> int:
    return gateway.log.count('"ready":true') - gateway.log.count('"ready":false')


def begin(link: Link, content: str):
    sock = connect(NAMESPACES / link.names[0], "127.0.0.1", 18080)
    sock.sendall(post(chat(content)))
    return sock


def answered(link: Link) -> float:
    """Seconds that a short request took."""
    began = time.monotonic()
    with begin(link, "a b") as sock:
        assert b'"finish_reason":"stop"' in read_until(sock, DONE, within_s=10)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("env", "code"),
    [
        (
            {"ARK_GRPC_PING_S": "1", "ARK_GRPC_PING_TIMEOUT_S": "1"},
            b"connection to the engine was lost",
        ),
        ({"ARK_BETWEEN_TOKENS_S": "2"}, b"token_timeout"),
    ],
    ids=["pings", "between-tokens"],
)
def test_a_decoder_that_vanishes_ends_its_streams_and_gets_no_new_ones(
    link: Link, env: dict[str, str], code: bytes
):
    with two_hosts(link, env) as gateway:
        streams = [begin(link, "count=100 gap_s=0.1") for _ in range(2)]
        for sock in streams:
            read_until(sock, b'"content":"', count=2)
        link.up = False
        cut = time.monotonic()
        # Whoever is sent there before it is known to be gone is sent elsewhere, within the time to notice.
        assert all(answered(link) < 5 for _ in range(6))
        assert [answered(link) < 0.5 for _ in range(6)] == [True] * 6
        ends = [read_until(sock, DONE, within_s=15) for sock in streams]
        assert sorted(b'"finish_reason":"stop"' in end for end in ends) == [False, True]
        assert sum(code in end for end in ends) == 1
        assert time.monotonic() - cut < 15
        link.up = True
        # TCP has waited for twice as long each time: up to as long as the link was down passes until it tries again.
        wait_until(lambda: ready(gateway) == 2, within_s=30, what="the decoder's return")
        assert all(answered(link) < 1 for _ in range(6))
        for sock in streams:
            sock.close()
