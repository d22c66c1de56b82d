"""The gateway as a unit, under a real systemd: what its users see of starts, restarts, reloads, stops and crashes."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from ark_trio.install import UNITS
from tests.support.booted import Host
from tests.support.installed import PLACE
from tests.support.lane import say
from tests.support.load import DONE, STOP, under_load
from tests.support.processes import wait_until
from tests.support.wire import chat, post, read_until
from tests.systemd.conftest import ECHO

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(120)]

PROXY = "ark-proxy.service"
SLOW = "count=40 gap_s=0.05"

HOOKS = """\
import os, signal, time
def hang(*_): time.sleep(3600)
def eat(*_): globals().setdefault("eaten", []).append(bytearray(os.urandom(1 << 20) * 512))
signal.signal(signal.SIGWINCH, hang)
signal.signal(signal.SIGUSR2, eat)
"""
"""A sitecustomize for the services: a bug on demand, in the thread of the event loop."""


def ask(host: Host, content: str, within_s: float = 20) -> bytes:
    with host.connect(18080) as sock:
        sock.sendall(post(chat(content)))
        return read_until(sock, DONE, within_s=within_s)


def get(host: Host, path: str) -> bytes:
    with host.connect(18080) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return read_until(sock, b"}")


def is_ready(host: Host) -> bool:
    return b" 200 " in get(host, "/readyz")


def words(answer: bytes) -> str:
    return "".join(re.findall(r'"content":"([^"]*)"', answer.decode()))


@pytest.fixture(autouse=True)
def all_well(host: Host):
    """Every test begins with everything running as shipped."""
    for unit in (PROXY, "ark-decoder.service"):
        drop_in = host.path(f"/etc/systemd/system/{unit}.d/test.conf")
        drop_in.unlink(missing_ok=True)
    host.write("/etc/ark/ark.toml", ECHO)
    host.write("/etc/ark/proxy.env", "")
    host.ctl("daemon-reload")
    host.ctl("start", "ark.target", "ark-proxy.socket", PROXY, "ark-decoder", "ark-prefiller")
    wait_until(lambda: is_ready(host), within_s=20, what="the gateway's readiness")


def started_anew(host: Host, unit: str, before: str) -> bool:
    """Whether the unit is up with another main process than `before`."""
    pid = host.show(unit, "MainPID")
    return host.show(unit, "ActiveState") == "active" and pid not in {"0", before}


def slow_stream(host: Host):
    """A stream under way; what it brings when it has ended is in the list."""
    answers: list[bytes] = []
    sock = host.connect(18080)
    sock.sendall(post(chat(SLOW)))
    head = read_until(sock, b'"content":"', count=2)

    def read() -> None:
        with sock:
            try:
                answers.append(head + read_until(sock, DONE, within_s=30))
            except OSError as error:
                answers.append(repr(error).encode())

    reader = threading.Thread(target=read)
    reader.start()
    return reader, answers


def test_a_start_serves_a_streamed_chat(host):
    host.ctl("stop", "ark-proxy.socket", PROXY)
    began = time.monotonic()
    host.ctl("start", "ark-proxy")
    started_s = time.monotonic() - began
    answer = ask(host, "The units stream this text.")
    assert words(answer) == "The units stream this text."
    say(f"ark-proxy.service started in {started_s:.2f} s and streamed: {words(answer)!r}")


def test_its_status_tells_of_streams_and_decoders(host):
    reader, _ = slow_stream(host)
    wait_until(lambda: host.show(PROXY, "StatusText").startswith("1 streams"), within_s=3)
    assert host.show(PROXY, "StatusText") == "1 streams, 0 waiting, 1 of 1 decoders ready"
    reader.join()


@pytest.mark.parametrize("workers", [1, 3])
def test_restarts_under_load_refuse_nothing_and_cut_nothing(host, workers):
    host.write("/etc/ark/proxy.env", f"ARK_WORKERS={workers}\n")
    host.ctl("restart", PROXY)
    wait_until(lambda: is_ready(host), within_s=10)
    reader, answers = slow_stream(host)
    with under_load(host.network) as load:
        time.sleep(0.3)
        for _ in range(3):
            before = host.show(PROXY, "MainPID")
            host.ctl("restart", PROXY)
            assert host.show(PROXY, "MainPID") != before
            time.sleep(0.3)
    reader.join()
    assert load.failures == []
    assert load.completed > 20
    assert STOP in answers[0]


def test_a_reload_under_load_takes_new_settings_and_touches_nothing(host):
    pid = host.show(PROXY, "MainPID")
    reader, answers = slow_stream(host)
    with under_load(host.network, clients=3) as load:
        host.write("/etc/ark/ark.toml", 'decoders = ["127.0.0.1:62000", "127.0.0.1:9"]\n' + ECHO)
        host.ctl("reload", PROXY)
        wait_until(lambda: "1 of 2 decoders ready" in host.show(PROXY, "StatusText"), within_s=5)
    reader.join()
    assert (load.failures, host.show(PROXY, "MainPID")) == ([], pid)
    assert STOP in answers[0]


def test_a_bad_file_fails_the_reload_and_the_old_settings_stay(host):
    pid = host.show(PROXY, "MainPID")
    host.write("/etc/ark/ark.toml", "decoders = 7\n")
    said = host.ctl("reload", PROXY, check=False)
    assert "failed" in said
    assert "decoders = 7: expected" in host.journal("-u", PROXY, "-n", "20")
    assert host.show(PROXY, "ActiveState") == "active"
    assert host.show(PROXY, "MainPID") == pid
    assert words(ask(host, "still here")) == "still here"


def test_a_bare_sighup_with_a_bad_file_is_refused_too(host):
    host.write("/etc/ark/ark.toml", "decoders = 7\n")
    host.ctl("kill", "-s", "HUP", PROXY)
    wait_until(
        lambda: (
            "reload refused" in host.show(PROXY, "StatusText")
            or "reload_refused" in host.journal("-u", PROXY, "-n", "5")
        ),
        within_s=3,
    )
    assert words(ask(host, "still here")) == "still here"


def test_a_stop_lets_streams_finish(host):
    reader, answers = slow_stream(host)
    host.ctl("stop", "ark-proxy.socket", PROXY)
    reader.join()
    assert STOP in answers[0]
    assert host.show(PROXY, "Result") == "success"
    with pytest.raises(ConnectionRefusedError):
        host.connect(18080)


def test_a_connection_starts_a_gateway_that_does_not_run(host):
    host.ctl("stop", PROXY)
    assert words(ask(host, "woken")) == "woken"


def test_a_killed_gateway_is_back_before_a_client_gives_up(host):
    os.kill(host.main_pid(PROXY), signal.SIGKILL)
    began = time.monotonic()
    assert words(ask(host, "back")) == "back"
    say(
        f"kill -9 of the gateway: the next request was answered after {time.monotonic() - began:.2f} s"
    )
    assert int(host.show(PROXY, "NRestarts")) >= 1


@pytest.mark.parametrize("unit", ["ark-decoder.service", "ark-prefiller.service"])
def test_a_killed_engine_is_started_again(host, unit):
    before = host.show(unit, "MainPID")
    os.kill(host.main_pid(unit), signal.SIGKILL)
    wait_until(lambda: started_anew(host, unit, before), within_s=15)
    wait_until(lambda: is_ready(host), within_s=10)
    assert words(ask(host, "back")) == "back"


def test_a_decoder_killed_in_mid_stream_is_told_as_an_error(host):
    reader, answers = slow_stream(host)
    os.kill(host.main_pid("ark-decoder.service"), signal.SIGKILL)
    reader.join()
    assert b'"type":"server_error"' in answers[0]
    assert STOP not in answers[0]


def test_without_a_decoder_it_starts_and_answers_503_with_retry_after(host):
    host.ctl("stop", "ark-decoder", PROXY)
    host.ctl("start", PROXY)
    with host.connect(18080) as sock:
        sock.sendall(post(chat("x")))
        answer = read_until(sock, b'"code"')
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in answer.lower()


def test_a_decoder_waits_for_its_prefiller_and_then_starts(host):
    host.ctl("stop", "ark-decoder", "ark-prefiller")
    host.ctl("start", "--no-block", "ark-decoder")
    wait_until(
        lambda: host.show("ark-decoder", "StatusText") == "waiting for a prefiller", within_s=5
    )
    time.sleep(1.5)
    assert host.show("ark-decoder", "ActiveState") == "activating"
    host.ctl("start", "ark-prefiller")
    wait_until(lambda: host.show("ark-decoder", "ActiveState") == "active", within_s=5)


def with_hooks(host: Host, unit: str, more: str) -> None:
    host.write("/etc/ark-test-hooks/sitecustomize.py", HOOKS)
    host.drop_in(unit, f"Environment=PYTHONPATH=/etc/ark-test-hooks\n{more}")
    host.ctl("restart", unit)
    wait_until(lambda: is_ready(host), within_s=10)


def test_a_hung_loop_is_found_and_started_again(host):
    with_hooks(host, PROXY, "WatchdogSec=1")
    pid = host.main_pid(PROXY)
    os.kill(pid, signal.SIGWINCH)
    began = time.monotonic()
    assert words(ask(host, "unhung", within_s=20)) == "unhung"
    say(
        f"a hung loop: the next request was answered after {time.monotonic() - began:.2f} s (WatchdogSec=1)"
    )
    log = host.journal("-u", PROXY, "-n", "60")
    assert "Watchdog timeout" in log
    assert "in hang" in log, "the journal tells where it hung"


def test_a_busy_loop_is_left_alone(host):
    with_hooks(host, PROXY, "WatchdogSec=1")
    before = host.main_pid(PROXY)
    with under_load(host.network, clients=40, script="count=400 gap_s=0.002 burst=4") as load:
        time.sleep(4)
    assert host.main_pid(PROXY) == before
    assert load.failures == []


def test_an_engine_over_its_memory_limit_is_killed_and_started_again(host):
    with_hooks(host, "ark-decoder.service", "MemoryMax=200M")
    unit = "ark-decoder.service"
    before = host.show(unit, "MainPID")
    os.kill(host.main_pid(unit), signal.SIGUSR2)
    # Under cgroup v1 systemd sees only the kernel's SIGKILL, under v2 the reason too.
    killed = re.compile(r"status=9/KILL|oom-kill")
    wait_until(lambda: killed.search(host.journal("-u", unit, "-n", "20")), within_s=15)
    wait_until(lambda: started_anew(host, unit, before), within_s=15)
    wait_until(lambda: is_ready(host), within_s=10)
    assert words(ask(host, "back")) == "back"


def test_with_several_workers_each_tells_its_state_and_a_dead_one_is_replaced(host):
    host.write("/etc/ark/proxy.env", "ARK_WORKERS=2\n")
    host.ctl("restart", PROXY)
    told = re.compile(r"worker 1: .* decoders ready; worker 2: .* decoders ready")
    wait_until(lambda: told.search(host.show(PROXY, "StatusText")), within_s=10)
    parent = host.main_pid(PROXY)
    workers = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    wait_until(lambda: "worker_died" in host.journal("-u", PROXY, "-n", "20"), within_s=5)
    for _ in range(6):
        assert words(ask(host, "one is left")) == "one is left"
    host.write("/etc/ark/ark.toml", 'decoders = ["127.0.0.1:62000", "127.0.0.1:9"]\n' + ECHO)
    host.ctl("reload", PROXY)
    wait_until(lambda: host.show(PROXY, "StatusText").count("1 of 2") == 2, within_s=10)
    assert host.main_pid(PROXY) == parent


def test_a_bad_configuration_is_told_and_not_tried_again(host):
    host.ctl("stop", "ark-proxy.socket", PROXY)
    host.write("/etc/ark/ark.toml", "workres = 1\n")
    assert "failed" in host.ctl("start", PROXY, check=False)
    assert host.show(PROXY, "ExecMainStatus") == "2"
    restarts = host.show(PROXY, "NRestarts")
    time.sleep(1)
    assert (host.show(PROXY, "ActiveState"), host.show(PROXY, "NRestarts")) == ("failed", restarts)
    assert "'workres' is no setting" in host.journal("-u", PROXY, "-n", "20")


def test_restarts_back_off(host):
    unit = "ark-prefiller.service"
    host.ctl("restart", unit)
    for failures in range(1, 4):
        before = host.show(unit, "MainPID")
        os.kill(host.main_pid(unit), signal.SIGKILL)
        expected = f"starts in {2 ** (failures - 2)} s, after {failures} failures"
        if failures > 1:
            wait_until(lambda text=expected: host.show(unit, "StatusText") == text, within_s=5)
        wait_until(lambda old=before: started_anew(host, unit, old), within_s=10)
    host.ctl("stop", unit)
    began = time.monotonic()
    host.ctl("start", unit)
    assert time.monotonic() - began < 1.9, "a stop forgets"


def test_a_second_installation_changes_nothing_and_an_uninstallation_leaves_nothing_running(host):
    again = host.run("/opt/ark/bin/ark-trio", "install-units")
    assert "written:" not in again
    host.run("/opt/ark/bin/ark-trio", "install-units", "--uninstall")
    assert host.ctl("list-units", "--all", "--no-legend", "ark-[pd]*", "ark.target") == ""
    assert not [name for name in UNITS if host.path(f"/etc/systemd/system/{name}").exists()]
    assert host.path("/etc/ark/ark.toml").read_text() == ECHO
    host.run("/opt/ark/bin/ark-trio", "install-units")


def test_keys_are_added_and_revoked_by_a_reload(host):
    """As docs/operations.md says it: the file is the service's own, private, and changed while the gateway runs."""
    host.run("install", "-o", "ark", "-g", "ark", "-m", "0600", "/dev/null", "/etc/ark/keys")
    host.write("/etc/ark/ark.toml", 'keys_file = "/etc/ark/keys"\n' + ECHO)
    host.ctl("reload", PROXY)
    wait_for_status(host, "", 401)
    keys = (f"{PLACE}/bin/ark-trio", "keys")
    named = ("--keys-file", "/etc/ark/keys")
    secret = json.loads(host.run(*keys, "add", "ann", "--json", *named))["key"]
    assert status_with(host, secret) == 401  # not before the reload
    host.ctl("reload", PROXY)
    wait_for_status(host, secret, 200)
    assert host.run("stat", "-c", "%U %G %a", "/etc/ark/keys").strip() == "ark ark 600"
    host.run(*keys, "revoke", "ann", *named)
    host.ctl("reload", PROXY)
    wait_for_status(host, secret, 401)

    # A bad file fails the reload for all to see, and the old keys stay.
    secret = json.loads(host.run(*keys, "add", "bob", "--json", *named))["key"]
    host.ctl("reload", PROXY)
    wait_for_status(host, secret, 200)
    good = host.run("cat", "/etc/ark/keys")
    host.write("/etc/ark/keys", "{")
    refused = host.ctl("reload", PROXY, check=False)
    assert "failed" in refused or "line 1" in host.journal("-u", PROXY, "-n", "20")
    assert status_with(host, secret) == 200
    host.write("/etc/ark/keys", good)
    assert secret not in host.journal("-u", PROXY)


def test_keys_may_be_a_credential_that_only_root_can_read(host):
    host.run("install", "-m", "0600", "/dev/null", "/etc/ark/secret")
    keys = (f"{PLACE}/bin/ark-trio", "keys", "add", "ann", "--json", "--keys-file")
    secret = json.loads(host.run(*keys, "/etc/ark/secret"))["key"]
    host.drop_in(PROXY, "LoadCredential=ark-keys:/etc/ark/secret")
    host.ctl("restart", PROXY)
    wait_until(lambda: is_ready(host), within_s=10)
    assert status_with(host, "") == 401
    assert status_with(host, secret) == 200


def wait_for_status(host: Host, secret: str, status: int) -> None:
    """Wait until a reload has come into force: of a unit of Type=notify, `systemctl reload` sends the signal and returns."""
    wait_until(lambda: status_with(host, secret) == status, within_s=10, what=f"status {status}")


def status_with(host: Host, secret: str) -> int:
    """The status of a request with a key, or with none."""
    header = f"authorization: Bearer {secret}\r\n" if secret else ""
    with host.connect(18080) as sock:
        sock.sendall(
            f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n".encode()
        )
        return int(read_until(sock, b"}").split()[1])
