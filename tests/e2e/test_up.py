"""`up` as a process among processes: whatever ends it, nothing that it started runs on."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from attrs import frozen

from tests.support import processes

FAKE = Path(__file__).parent.parent / "support" / "up_fake.py"
ROLES = ("prefiller", "decoder", "gateway")
STOP_S = 2.0
SLACK_S = 1.0  # for a busy machine; the promise itself is STOP_S
MARK = "UP_TEST_MARK"

pytestmark = pytest.mark.e2e


@frozen(kw_only=True)
class Run:
    """A running `up`, and how to find everything that descends from it."""

    process: subprocess.Popen[str]
    mark: str
    seen: list[str]

    def read_until(self, text: str, limit_s: float = 30.0) -> str:
        """Read its output until `text` has come, and return all of it."""
        assert self.process.stdout is not None
        end = time.monotonic() + limit_s
        while text not in "".join(self.seen):
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen}"
            line = self.process.stdout.readline()
            assert line, f"{text!r} did not come: {self.seen}"
            self.seen.append(line)
        return "".join(self.seen)

    def ends(self, limit_s: float) -> tuple[int, str]:
        """Wait for its end; its exit code and whole output."""
        began = time.monotonic()
        rest, _ = self.process.communicate(timeout=limit_s + 10)
        assert time.monotonic() - began < limit_s
        return self.process.returncode, "".join(self.seen) + rest

    def descendants(self) -> set[int]:
        """Whatever was started by it, however far removed, and still runs."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal()
            and int(entry.name) != self.process.pid
            and _runs(entry, self.mark)
        }


def _runs(entry: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
    except OSError:  # it has ended, or is a zombie
        return False


@pytest.fixture
def started(tmp_path):
    """Start commands with a mark that all their descendants inherit; kill what is left."""
    runs = []

    def start(*command):
        mark = uuid.uuid4().hex
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ARK_")},
            MARK: mark,
            "XDG_STATE_HOME": str(tmp_path),
        }
        process = processes.start(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
            cwd=tmp_path,
        )
        runs.append(Run(process=process, mark=mark, seen=[]))
        return runs[-1]

    yield start
    for run in runs:
        for pid in {run.process.pid} | run.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.communicate(timeout=5)


@pytest.fixture
def ports():
    held = [socket.create_server(("127.0.0.1", 0)) for _ in ROLES]
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return dict(zip(ROLES, found, strict=True))


@pytest.fixture
def fakes(started, ports, tmp_path):
    def start(ready_limit_s=30, **flags):
        services = {role: {"port": ports[role], "flags": flags.get(role, [])} for role in ROLES}
        log = str(tmp_path / "up.log")
        return started(
            sys.executable, str(FAKE), "run", json.dumps(services), str(ready_limit_s), log
        )

    return start


@pytest.fixture
def echo(started, ports):
    def start(*flags):
        return started(
            sys.executable,
            "-m",
            "ark_trio",
            "up",
            "--engine=echo",
            f"--bind=127.0.0.1:{ports['gateway']}",
            f"--decoder-port={ports['decoder']}",
            f"--prefiller-port={ports['prefiller']}",
            *flags,
        )

    return start


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def within(limit_s, condition):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_stops_everything(fakes, number):
    run = fakes()
    run.read_until("Ctrl-C stops it")
    assert len(run.descendants()) == 3
    run.process.send_signal(number)
    code, output = run.ends(STOP_S)
    assert code == 0
    assert f"{number.name}: stopping\nAll services stopped." in output
    assert run.descendants() == set()


def test_ctrl_c_to_the_whole_group_stops_everything(fakes):
    run = fakes()
    run.read_until("Ctrl-C stops it")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends(STOP_S)[0] == 0
    assert run.descendants() == set()


def test_the_services_are_out_of_the_terminal_s_reach(fakes):
    run = fakes()
    run.read_until("Ctrl-C stops it")
    assert all(os.getsid(pid) == pid for pid in run.descendants())


def test_deaf_services_and_what_they_started_are_killed_in_time(fakes):
    run = fakes(prefiller=["--deaf", "--brood"], decoder=["--deaf"], gateway=["--deaf", "--brood"])
    run.read_until("Ctrl-C stops it")
    within(5, lambda: len(run.descendants()) == 5)
    run.process.send_signal(signal.SIGINT)
    assert run.ends(STOP_S)[0] == 0
    assert run.descendants() == set()


def test_a_second_ctrl_c_does_not_cut_the_stopping_short(fakes):
    run = fakes(prefiller=["--deaf"], decoder=["--deaf"], gateway=["--deaf"])
    run.read_until("Ctrl-C stops it")
    for _ in range(5):
        run.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert run.ends(STOP_S)[0] == 0
    assert run.descendants() == set()


def test_a_signal_while_starting_stops_everything(fakes):
    run = fakes(gateway=["--mute"])
    run.read_until("decoder ready")
    run.process.send_signal(signal.SIGINT)
    assert run.ends(STOP_S)[0] == 0
    assert run.descendants() == set()


def test_nothing_survives_when_up_itself_is_killed(fakes):
    run = fakes(prefiller=["--deaf", "--brood"], decoder=["--deaf"])
    run.read_until("Ctrl-C stops it")
    within(5, lambda: len(run.descendants()) == 4)
    run.process.kill()
    within(STOP_S + SLACK_S, lambda: not run.descendants())


def test_a_service_that_ends_is_named_with_its_last_words_and_ends_the_rest(fakes):
    run = fakes(decoder=["--die=7", "--brood"])
    code, output = run.ends(10)
    assert code == 1
    assert "the decoder ended (exit code 7); stopping the others" in output
    assert "  a line before the end\n  the last words\n" in output
    assert run.descendants() == set()


def test_a_service_that_is_killed_later_is_named_with_the_signal(fakes):
    run = fakes()
    run.read_until("Ctrl-C stops it")
    os.kill(min(run.descendants()), signal.SIGKILL)
    code, output = run.ends(STOP_S + SLACK_S)
    assert code == 1
    assert "ended (killed by SIGKILL)" in output
    assert run.descendants() == set()


def test_a_service_that_never_gets_ready_is_named(fakes):
    run = fakes(ready_limit_s=1.5, prefiller=["--mute"])
    code, output = run.ends(10)
    assert code == 1
    assert "not ready after 1.5 s: prefiller\n" in output
    assert run.descendants() == set()


def test_a_port_taken_is_named_before_anything_starts(fakes, ports):
    with socket.create_server(("127.0.0.1", ports["decoder"])):
        run = fakes()
        code, output = run.ends(10)
    assert code == 2
    assert f"port {ports['decoder']}" in output
    assert (
        "is taken by another process; the decoder needs it (another one: --decoder-port)" in output
    )
    assert "Starting" not in output


def test_the_services_output_is_in_the_log_with_their_names(fakes, tmp_path, ports):
    run = fakes()
    assert "serving" not in run.read_until("Ctrl-C stops it")
    run.process.send_signal(signal.SIGINT)
    run.ends(STOP_S)
    log = (tmp_path / "up.log").read_text()
    for words in ("serving", "stopped"):  # also what was written last
        assert all(f"{role:9} | {words} {ports[role]}\n" in log for role in ROLES)


def test_up_serves_the_documented_example_as_printed_and_stops_on_ctrl_c(echo, ports):
    run = echo()
    output = run.read_until("  -d '")
    command = output[output.index("curl -N") :]
    answer = subprocess.run(
        shlex.split(command.replace("\\\n", " ")),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert answer.stdout.startswith("data: {")
    assert answer.stdout.endswith("data: [DONE]\n\n")
    with urllib.request.urlopen(
        f"http://127.0.0.1:{ports['gateway']}/v1/models", timeout=5
    ) as page:
        names = [each["id"] for each in json.load(page)["data"]]
    assert names == ["echo", "deepseek-r1-0528"]
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.ends(STOP_S)[0] == 0
    assert run.descendants() == set()


def test_real_services_end_when_up_is_killed(echo):
    run = echo()
    output = run.read_until("  -d '")
    assert len(run.descendants()) == 3
    run.process.kill()
    within(STOP_S + SLACK_S, lambda: not run.descendants())
    assert "ready after" in output


def test_ctrl_c_ends_running_streams_with_an_error_frame_in_time(echo, ports):
    run = echo()
    run.read_until("  -d '")
    body = {
        "model": "echo",
        "stream": True,
        "messages": [{"role": "user", "content": "count=1000 gap_s=0.05"}],
    }
    command = ["curl", "-sN", f"http://127.0.0.1:{ports['gateway']}/v1/chat/completions"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline().startswith("data: {")
        os.killpg(run.process.pid, signal.SIGINT)
        rest = client.stdout.read()
    assert run.ends(STOP_S)[0] == 0
    assert '"error":{"message":"The gateway is being stopped."' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert run.descendants() == set()


def test_a_decoder_that_is_killed_ends_up_with_its_name(echo, ports):
    run = echo()
    run.read_until("  -d '")
    victim = next(pid for pid in run.descendants() if b"\0decoder\0" in command_line(pid))
    os.kill(victim, signal.SIGKILL)
    code, output = run.ends(STOP_S + SLACK_S)
    assert code == 1
    assert "the decoder ended (killed by SIGKILL)" in output
    assert run.descendants() == set()


def test_wrong_settings_of_a_service_are_told_before_anything_starts(started):
    run = started(sys.executable, "-m", "ark_trio", "up", "--engine=echo", "--bind=0.0.0.0:1")
    code, output = run.ends(10)
    assert code == 2
    assert output.count("\n") == 1
    assert "ARK_INSECURE=1" in output
