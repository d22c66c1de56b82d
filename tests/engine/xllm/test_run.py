"""The process in front of the private engine, with a fake behind it; tests/systemd/ has it under its units."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.private_engine import lay_out
from tests.support.processes import Process, free_port, listens, running, wait_until

pytestmark = pytest.mark.e2e


@contextmanager
def private_engine(root: Path, mode: str = "serve", **more: str) -> Iterator[tuple[Process, int]]:
    lay_out(root)
    (root / "app/xllm/license.lic").write_text("a licence")
    (root / "app/xllm/mode").write_text(mode)
    port = free_port()
    env = {
        "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        "RECORD_IN": str(root),
        "ARK_GRPC_BIND": f"0.0.0.0:{port}",
        "ARK_XLLM_HOME": f"{root}/app/xllm",
        "ARK_XLLM_MODEL_DIR": f"{root}/data/models/DeepSeek-R1-ENC-xLLM",
        "ARK_XLLM_DRAFT_MODEL_DIR": f"{root}/data/models/DeepSeek-R1-DRAFT-ENC-xLLM",
        "ARK_XLLM_INTERFACE": "lo",
        "ARK_XLLM_MIN_SHM_BYTES": "0",
        "ARK_XLLM_MIN_MEMLOCK_BYTES": "0",
        "ARK_XLLM_MIN_OPEN_FILES": "0",
        **more,
    }
    with running(["ark-trio", "prefiller", "--engine", "xllm"], env) as process:
        yield process, port


def engine_pid(process: Process) -> int:
    wait_until(process.children, within_s=10, what="the engine's start")
    (pid,) = process.children()
    return pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_sigterm_is_passed_on_and_the_end_is_clean(tmp_path):
    with private_engine(tmp_path) as (process, port):
        wait_until(lambda: "engine_ready" in process.log, within_s=10)
        assert listens(port)
        process.signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert not listens(port)


def test_an_engine_that_ignores_sigterm_is_killed_when_the_drain_is_over(tmp_path):
    with private_engine(tmp_path, "stubborn", ARK_DRAIN_S="0.5") as (process, _):
        pid = engine_pid(process)
        wait_until(lambda: "engine_ready" in process.log, within_s=10)
        process.signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert is_gone(pid)


def test_sigint_ends_it_within_two_seconds(tmp_path):
    with private_engine(tmp_path, "stubborn") as (process, _):
        wait_until(lambda: "engine_ready" in process.log, within_s=10)
        process.signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(5) == 0
        assert time.monotonic() - began < 2


def test_it_does_not_outlive_us(tmp_path):
    with private_engine(tmp_path) as (process, port):
        pid = engine_pid(process)
        wait_until(lambda: listens(port), within_s=10)
        os.kill(process.popen.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), within_s=5, what="the engine's end")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("crash", "killed by SIGSEGV"),
        ("exit", "ended by itself with code 7"),
        ("record", "ended by itself with code 0"),
    ],
)
def test_however_it_ends_unasked_it_is_a_failure_with_its_reason(tmp_path, mode, reason):
    with private_engine(tmp_path, mode) as (process, _):
        assert process.wait(10) == 1
        assert reason in process.log
        assert "Traceback" not in process.log


def test_one_that_does_not_get_well_in_time_is_given_up(tmp_path):
    with private_engine(tmp_path, "deaf", ARK_XLLM_START_S="1.5") as (process, _):
        pid = engine_pid(process)
        assert process.wait(10) == 1
        assert "it was not healthy within 1.5 s" in process.log
        assert is_gone(pid)


def test_faults_are_told_and_nothing_is_started(tmp_path):
    with private_engine(tmp_path, ARK_XLLM_MODEL_DIR="/nowhere", ARK_XLLM_INTERFACE="nope0") as (
        process,
        _,
    ):
        assert process.wait(10) == 1
        assert "model: /nowhere can't be read" in process.log
        assert "nope0 has no IPv4 address" in process.log
        assert not (tmp_path / "record.json").exists()
