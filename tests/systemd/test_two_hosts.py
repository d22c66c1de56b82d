"""Gateway and prefiller on one host, the decoder on another: both hops cross a link that is slow, cut and healed."""

import re
import time
from pathlib import Path

import pytest

from tests.support.booted import Host, booted
from tests.support.installed import PLACE
from tests.support.lane import say
from tests.support.load import DONE
from tests.support.netlab import Link, linked
from tests.support.processes import wait_until
from tests.support.wire import chat, post, read_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(240)]

A, B = "10.77.0.1", "10.77.0.2"
MODEL = "smollm2-135m-instruct"
PINGS = """\
[grpc]
ping_s = 1
ping_timeout_s = 1

[limits]
connect_s = 2
"""


@pytest.fixture(scope="module")
def link():
    if not Path("/dev/net/tun").exists():
        pytest.fail("this machine lacks: kernel: TUN devices (CONFIG_TUN)")
    with linked((A, B)) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(installed, link: Link):
    with booted(binds={PLACE: installed}, network=link.names[0]) as host:
        host.run(f"{PLACE}/bin/ark-trio", "install-units")
        host.write("/etc/ark/ark.toml", f'decoders = ["{B}:62000"]\n' + PINGS)
        host.write("/etc/ark/prefiller.env", f"ARK_GRPC_BIND={A}:62010\n")
        host.ctl("start", "ark-proxy", "ark-prefiller")
        yield host


@pytest.fixture(scope="module")
def decoder(installed, link: Link, gateway: Host):
    with booted(binds={PLACE: installed}, network=link.names[1]) as host:
        host.run(f"{PLACE}/bin/ark-trio", "install-units")
        host.write("/etc/ark/ark.toml", PINGS)
        host.write("/etc/ark/decoder.env", f"ARK_GRPC_BIND={B}:62000\nARK_PREFILLERS={A}:62010\n")
        host.ctl("start", "ark-decoder")
        yield host


@pytest.fixture(autouse=True)
def healed(link: Link, gateway: Host, decoder: Host):
    link.up, link.delay_s, link.loss = True, 0.0, 0.0
    for host, unit in ((gateway, "ark-prefiller"), (decoder, "ark-decoder")):
        host.ctl("start", unit)
    wait_until(lambda: is_ready(gateway), within_s=30, what="readiness")


def is_ready(gateway: Host) -> bool:
    return "1 of 1 decoders ready" in gateway.show("ark-proxy", "StatusText")


def ask(gateway: Host, question: str, tokens: int = 12) -> bytes:
    with gateway.connect(18080) as sock:
        sock.sendall(post(chat(question, model=MODEL, max_tokens=tokens)))
        return read_until(sock, DONE, within_s=40)


def words(answer: bytes) -> str:
    return "".join(re.findall(r'"content":"((?:[^"\\]|\\.)*)"', answer.decode()))


def test_a_slow_lossy_link_costs_time_and_nothing_else(link, gateway):
    plain = words(ask(gateway, "Name three fruits."))
    link.delay_s, link.loss = 0.05, 0.01
    began = time.monotonic()
    answer = ask(gateway, "Name three animals, and say where they live.")
    assert len(words(answer)) > 10
    assert len(plain) > 10
    say(
        f"two hosts, 50 ms each way, 1 % lost: streamed {words(answer)!r} in {time.monotonic() - began:.1f} s"
    )
    assert min(link.carried) > 20, "both hops crossed the link"


def test_a_partition_in_mid_stream_is_told_and_a_heal_is_found(link, gateway):
    with gateway.connect(18080) as sock:
        sock.sendall(
            post(chat("Tell me a long story.", model=MODEL, max_tokens=1500, ignore_eos=True))
        )
        read_until(sock, b'"content":"', count=3, within_s=20)
        link.up = False
        began = time.monotonic()
        answer = read_until(sock, DONE, within_s=30)
    assert b'"error"' in answer
    assert b'"finish_reason":"stop"' not in answer
    told_s = time.monotonic() - began
    wait_until(lambda: not is_ready(gateway), within_s=10, what="the loss to be seen")
    with gateway.connect(18080) as sock:
        sock.sendall(post(chat("x", model=MODEL)))
        assert read_until(sock, b'"code"').startswith(b"HTTP/1.1 503 ")
    link.up = True
    began = time.monotonic()
    wait_until(lambda: is_ready(gateway), within_s=20, what="the heal to be seen")
    healed_s = time.monotonic() - began
    assert len(words(ask(gateway, "Name three rivers."))) > 5
    say(f"partition told after {told_s:.1f} s, heal found after {healed_s:.1f} s")


def test_a_prefiller_that_is_cut_off_from_its_decoder_is_an_error_and_no_hang(gateway, decoder):
    # Only the way to the prefiller: the gateway still reaches the decoder.
    decoder.run("ip", "route", "add", "prohibit", f"{A}/32", "table", "7")
    decoder.run("ip", "rule", "add", "ipproto", "tcp", "dport", "62010", "table", "7")
    try:
        decoder.ctl("restart", "--no-block", "ark-decoder")
        wait_until(
            lambda: decoder.show("ark-decoder", "StatusText") == "waiting for a prefiller",
            within_s=20,
        )
    finally:
        decoder.run("ip", "rule", "delete", "ipproto", "tcp", "dport", "62010", "table", "7")
    wait_until(lambda: decoder.show("ark-decoder", "ActiveState") == "active", within_s=20)
    wait_until(lambda: is_ready(gateway), within_s=20)
    assert len(words(ask(gateway, "Name three cities."))) > 5


def test_a_prefiller_that_dies_is_told_at_once_and_found_again(gateway):
    gateway.ctl("stop", "ark-prefiller")
    began = time.monotonic()
    with gateway.connect(18080) as sock:
        sock.sendall(post(chat("Name three oceans, please.", model=MODEL)))
        answer = read_until(sock, b'"code"', within_s=20)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert time.monotonic() - began < 10
    gateway.ctl("start", "ark-prefiller")
    assert len(words(ask(gateway, "Name three oceans, please."))) > 5
