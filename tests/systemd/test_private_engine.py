"""The private engine through the units of GPU hosts, with fakes in its place that record how they were started."""

import json
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine.xllm.test_launch import DECODE, PREFILL
from tests.support.booted import Host, booted
from tests.support.installed import PLACE, ROOT
from tests.support.lane import say
from tests.support.load import DONE
from tests.support.private_engine import LICENSE, RECORDER, STAND_IN, files
from tests.support.processes import wait_until
from tests.support.wire import chat, post, read_until

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(120)]

ADDRESS = "10.0.0.7"
CREDENTIAL = "/etc/ark/credentials/license.lic"
SETTINGS = """\
[xllm]
min_shm_bytes = "1GiB"
start_s = 20
min_memlock_bytes = 65536
min_open_files = 1024
"""
DECODER_ENV = "PREFILL_NODE_IP=10.0.0.5,10.0.0.6\nARK_PREFILLER_WAIT_S=0\n"
UNITS = {"prefiller": "ark-prefiller.service", "decoder": "ark-decoder.service"}


@pytest.fixture(scope="module")
def gpu_host(installed):
    """A host with GPUs, as far as anyone can tell."""
    with booted(binds={PLACE: installed}) as machine:
        machine.run("ip", "link", "add", "eth0", "type", "bridge")
        machine.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run(f"{PLACE}/bin/ark-trio", "install-units", "--gpu")
        yield machine


@pytest.fixture
def host(gpu_host: Host):
    """Everything in its place, nothing running."""
    gpu_host.ctl("stop", "ark.target", *UNITS.values(), "ark-proxy.socket", "ark-proxy.service")
    gpu_host.ctl("reset-failed")
    lay_out(gpu_host, RECORDER)
    gpu_host.write("/app/xllm/mode", "serve")
    gpu_host.write(CREDENTIAL, LICENSE, 0o600)
    gpu_host.write("/etc/ark/ark.toml", SETTINGS)
    gpu_host.write("/etc/ark/prefiller.env", "")
    gpu_host.write("/etc/ark/decoder.env", DECODER_ENV)
    return gpu_host


def lay_out(host: Host, binary: str) -> None:
    for path, (text, mode) in files(binary).items():
        host.write(path, text, mode)


def granted(which: int, wanted: int) -> int:
    """What systemd can grant: without CAP_SYS_RESOURCE no more than it has itself."""
    _, hard = resource.getrlimit(which)
    enough = hard == resource.RLIM_INFINITY or 0 <= wanted <= hard
    return wanted if MAY_RAISE or enough else hard


def own_oom_score_adjust() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def _may_raise() -> bool:
    found = re.search(r"CapEff:\s+([0-9a-f]+)", Path("/proc/self/status").read_text())
    assert found
    return bool(int(found[1], 16) >> 24 & 1)  # CAP_SYS_RESOURCE


MAY_RAISE = _may_raise()


def record(host: Host, role: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.path(f"/run/ark-{role}/record.json").read_text())
    return found


@pytest.mark.parametrize(("role", "rows"), [("prefiller", PREFILL), ("decoder", DECODE)])
def test_the_unit_starts_it_as_its_operators_would(host, role, rows):
    host.ctl("start", UNITS[role])
    found = record(host, role)
    expected = {name: value.replace("10.0.0.7", ADDRESS) for name, value in rows.items()}
    assert {name: found["environment"].get(name) for name in expected} == expected
    short = {"prefiller": "prefill", "decoder": "decode"}[role]
    assert found["argv"] == [
        "./private_xllm.bin",
        *("--model-dir", "/data/models/DeepSeek-R1-ENC-xLLM"),
        *("--env-path", f"/app/xllm/{short}_enc.env"),
        *("--driver-type", f"splitwise_{short}"),
        *("--num-server-procs", "4"),
        *("--port", "62000"),
    ]
    assert found["folder"] == "/app/xllm"
    asked = {
        name: host.show(UNITS[role], name)
        for name in ("LimitMEMLOCK", "LimitNOFILE", "LimitCORE", "OOMScoreAdjust")
    }
    assert asked == {
        "LimitMEMLOCK": "infinity",
        "LimitNOFILE": "1048576",
        "LimitCORE": "0",
        "OOMScoreAdjust": "-900",
    }
    # What it got is as close to that as this machine's own limits allow.
    assert found["limits"]["MEMLOCK"] == [granted(resource.RLIMIT_MEMLOCK, -1)] * 2
    assert found["limits"]["NOFILE"] == [granted(resource.RLIMIT_NOFILE, 1048576)] * 2
    assert found["limits"]["CORE"] == [0, 0]
    assert found["oom_score_adjust"] == (-900 if MAY_RAISE else own_oom_score_adjust())
    assert found["license"] == LICENSE
    assert "NOTIFY_SOCKET" not in found["environment"]
    assert host.show(UNITS[role], "StatusText") == "the engine is healthy"


@pytest.mark.parametrize("role", ["prefiller", "decoder"])
def test_the_container_s_entry_point_starts_it_in_the_very_same_way(host, role):
    host.ctl("start", UNITS[role])
    ours = record(host, role)
    host.ctl("stop", UNITS[role])
    host.write("/app/xllm/mode", "record")
    host.write("/app/xllm/license.lic", LICENSE)
    host.write(f"/app/{role}-setup", (ROOT / "docker" / f"{role}-setup").read_text())
    host.run(
        "env", "RECORD_IN=/run", "PREFILL_NODE_IP=10.0.0.5,10.0.0.6", "sh", f"/app/{role}-setup"
    )
    theirs = json.loads(host.path("/run/record.json").read_text())
    assert theirs["argv"] == ours["argv"]
    assert theirs["folder"] == ours["folder"]
    rows = {"prefiller": PREFILL, "decoder": DECODE}[role]
    told = {
        name
        for name in theirs["environment"]
        if name.startswith(
            ("XLLM", "XPERF", "SPLITWISE", "VETURBO", "PREFILL_ADDRS", "PYTHONPATH", "LD_LIBRARY")
        )
    }
    assert told == set(rows)
    assert {name: theirs["environment"][name] for name in rows} == {
        name: ours["environment"][name] for name in rows
    }


def started(host: Host, unit: str) -> str:
    """Try a start; the journal of it."""
    host.ctl("start", unit, check=False)
    return host.journal("-u", unit, "-n", "40")


def test_everything_that_is_missing_is_told_in_a_line_each(host):
    host.run(
        "rm",
        "-rf",
        "/usr/bin/nvidia-smi",
        "/data/models",
        "/app/xllm/prefill_enc.env",
        "/app/xllm/private_xllm.bin",
    )
    host.run("ip", "link", "set", "eth0", "name", "eth9")
    host.drop_in(
        UNITS["prefiller"],
        "LimitMEMLOCK=64K\nLimitNOFILE=1000\nEnvironment=ARK_XLLM_MIN_SHM_BYTES=1000GiB ARK_XLLM_MIN_OPEN_FILES=65536 ARK_XLLM_MIN_MEMLOCK_BYTES=none\nRestart=no",
    )
    with_port_taken = [
        "systemd-run",
        "--unit=taker",
        "/usr/bin/python3",
        "-m",
        "http.server",
        "62000",
    ]
    host.run(*with_port_taken)
    try:
        wait_until(lambda: "62000" in host.run("ss", "-ltn"), within_s=5)
        log = started(host, UNITS["prefiller"])
        for line in (
            "GPUs: nvidia-smi can't be run; is the driver installed?",
            "address: the interface eth0 has no IPv4 address (xllm.interface, xllm.local_addr)",
            "engine: /app/xllm/private_xllm.bin can't be run (xllm.home, xllm.binary)",
            "model: /data/models/DeepSeek-R1-ENC-xLLM can't be read (xllm.model_dir)",
            "draft model: /data/models/DeepSeek-R1-DRAFT-ENC-xLLM can't be read (xllm.draft_model_dir)",
            "tuner configuration: /data/models/DeepSeek-R1-ENC-xLLM/saved_model/gemm_config can't be read",
            "environment file: /app/xllm/prefill_enc.env can't be read (xllm.env_file)",
            "port: 62000 can't be listened on (grpc_bind): Address already in use",
            "memlock: the limit is 65536 bytes; no limit is needed (LimitMEMLOCK=)",
            "nofile: the limit is 1000; at least 65536 is needed (LimitNOFILE=)",
            "1000 GiB is needed (xllm.min_shm_bytes)",
        ):
            assert line in log, line
    finally:
        host.ctl("stop", "taker")
        host.run("ip", "link", "set", "eth9", "name", "eth0")
        host.run("rm", f"/etc/systemd/system/{UNITS['prefiller']}.d/test.conf")
        host.ctl("daemon-reload")


def test_a_missing_licence_is_named_and_found_when_it_comes(host):
    unit = UNITS["prefiller"]
    host.path(CREDENTIAL).unlink()
    host.ctl("start", "--no-block", unit)
    line = "licence: there is none in /app/xllm/license.lic (xllm.license; under systemd"
    wait_until(lambda: line in host.journal("-u", unit, "-n", "20"), within_s=10)
    host.write(CREDENTIAL, LICENSE, 0o600)
    wait_until(lambda: host.show(unit, "ActiveState") == "active", within_s=20)


def test_a_credential_that_goes_missing_is_not_tried_again_and_again(host):
    host.write(
        f"/etc/systemd/system/{UNITS['prefiller']}.d/test.conf",
        "[Service]\nLoadCredential=other:/etc/ark/credentials/other\n",
    )
    host.ctl("daemon-reload")
    try:
        log = started(host, UNITS["prefiller"])
        assert "status=243/CREDENTIALS" in log
        assert host.show(UNITS["prefiller"], "ActiveState") == "failed"
    finally:
        host.run("rm", f"/etc/systemd/system/{UNITS['prefiller']}.d/test.conf")
        host.ctl("daemon-reload")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("crash", "the engine was killed by SIGSEGV"),
        ("exit", "the engine ended by itself with code 7"),
    ],
)
def test_the_reason_of_a_crash_is_in_the_journal_and_it_is_started_again(host, mode, reason):
    host.write("/app/xllm/mode", mode)
    host.ctl("start", "--no-block", UNITS["prefiller"])
    wait_until(lambda: reason in host.journal("-u", UNITS["prefiller"]), within_s=10)
    wait_until(lambda: int(host.show(UNITS["prefiller"], "NRestarts")) >= 1, within_s=10)
    host.write("/app/xllm/mode", "serve")
    wait_until(lambda: host.show(UNITS["prefiller"], "ActiveState") == "active", within_s=15)


def test_until_it_is_healthy_the_status_says_so_and_then_it_is_given_up(host):
    host.write("/app/xllm/mode", "deaf")
    host.write("/etc/ark/ark.toml", SETTINGS.replace("start_s = 20", "start_s = 4"))
    host.ctl("start", "--no-block", UNITS["prefiller"])
    wait_until(
        lambda: "not healthy after" in host.show(UNITS["prefiller"], "StatusText"), within_s=5
    )
    assert host.show(UNITS["prefiller"], "ActiveState") == "activating"
    wait_until(
        lambda: (
            "given up: it was not healthy within 4 s"
            in host.journal("-u", UNITS["prefiller"], "-n", "30")
        ),
        within_s=15,
    )


def test_a_stop_ends_it_and_all_of_its_processes(host):
    host.ctl("start", UNITS["prefiller"])
    host.ctl("stop", UNITS["prefiller"])
    assert host.show(UNITS["prefiller"], "Result") == "success"
    assert "private_xllm" not in host.run("ps", "ax")


def test_our_cpu_engine_serves_in_its_place_through_the_same_units(host):
    lay_out(host, STAND_IN)
    # One host for both, so ports of their own; the prefiller is asked on its driver's port, as always.
    host.write("/etc/ark/prefiller.env", "ARK_GRPC_BIND=0.0.0.0:62010\n")
    host.write(
        "/etc/ark/decoder.env",
        "PREFILL_NODE_IP=127.0.0.1\nARK_XLLM_DRIVER_PORT=62021\nARK_PREFILLER_WAIT_S=30\n",
    )
    began = time.monotonic()
    host.ctl("start", "ark.target")
    with_model = chat("Name three colours.", model="deepseek-r1-0528", max_tokens=16)
    wait_until(lambda: "1 of 1 decoders ready" in host.show("ark-proxy", "StatusText"), within_s=20)
    with host.connect(18080) as sock:
        sock.sendall(post(with_model))
        answer = read_until(sock, DONE, within_s=30)
    assert answer.count(b'"content":"') > 5
    say(
        f"the CPU engine in the private one's place: ready and answered after {time.monotonic() - began:.1f} s"
    )
    assert "private_xllm.bin" in host.journal("-u", UNITS["decoder"], "-n", "20")
