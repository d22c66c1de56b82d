"""The engine processes: how they start, and how each signal ends them."""

import signal
import time
from collections.abc import Callable

import httpx2
import pytest
import trio

from ark_trio.errors import Unavailable
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import open_channel
from tests.support.llama import Answer, ask, chat
from tests.support.processes import Served, engine, free_port, listens, running, wait_until

pytestmark = pytest.mark.e2e


def while_it_says(process: Served, script: str, act: Callable[[], None]) -> Answer:
    """Ask for `script`, `act` once it is under way, and return the answer."""

    async def call() -> Answer:
        async with open_bridge() as bridge:
            async with open_channel(bridge, "127.0.0.1", process.port) as channel:
                answers: list[Answer] = []
                began = trio.Event()

                async def run() -> None:
                    answers.append(await ask(channel, chat(script), began=began))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run)
                    await began.wait()
                    await trio.to_thread.run_sync(act)
                return answers[0]

    return trio.run(call)


def test_it_says_once_that_it_is_ready():
    with engine("decoder", "--served-names", "a,b") as process:
        ready = [line for line in process.log.splitlines() if "engine_ready" in line]
        assert len(ready) == 1
        assert str(process.port) in ready[0]


def test_its_numbers_can_be_scraped_the_drain_included():
    port = free_port()
    with engine("decoder", "--engine-metrics-bind", f"127.0.0.1:{port}") as process:

        def scraped() -> str:
            return httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text

        def act() -> None:
            assert "ark_engine_slots_busy 1.0" in scraped()
            process.signal(signal.SIGTERM)
            wait_until(lambda: "engine_draining" in process.log)
            assert "ark_engine_slots_busy 1.0" in scraped()

        assert while_it_says(process, "count=8 gap_s=0.1", act).finishes == ["stop"]
        assert process.wait(2) == 0


def test_sigterm_lets_calls_finish():
    with engine() as process:
        answer = while_it_says(process, "count=8 gap_s=0.1", lambda: process.signal(signal.SIGTERM))
        assert answer.text() == "0 1 2 3 4 5 6 7 "
        assert process.wait(2) == 0
        assert not listens(process.port)


def test_a_call_that_outlasts_the_drain_is_told():
    with engine("decoder", "--drain-s", "0.3") as process:
        answer = while_it_says(process, "hang_at=1", lambda: process.signal(signal.SIGTERM))
        assert isinstance(answer.error, Unavailable)
        assert process.wait(2) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second: signal.Signals):
    with engine() as process:

        def act() -> None:
            process.signal(signal.SIGTERM)
            time.sleep(0.2)
            process.signal(second)

        began = time.monotonic()
        answer = while_it_says(process, "hang_at=1", act)
        assert isinstance(answer.error, Unavailable)
        assert process.wait(2) == 0
        assert time.monotonic() - began < 1.5


def test_sigint_ends_within_a_second():
    with engine() as process:
        began: list[float] = []

        def act() -> None:
            began.append(time.monotonic())
            process.signal(signal.SIGINT)

        answer = while_it_says(process, "hang_at=1", act)
        assert isinstance(answer.error, Unavailable)
        assert process.wait(2) == 0
        assert time.monotonic() - began[0] < 1
        assert "Traceback" not in process.log


def test_a_port_that_is_taken_is_named_before_anything_is_loaded():
    with engine() as first:
        for flag in ("--grpc-bind", "--engine-metrics-bind"):
            bind = ["--grpc-bind", "127.0.0.1:0", flag, f"127.0.0.1:{first.port}"]
            with running(["ark-trio", "decoder", "--engine", "llama", *bind]) as second:
                began = time.monotonic()
                assert second.wait(5) == 1
                assert time.monotonic() - began < 2
                assert str(first.port) in second.log
                assert "Traceback" not in second.log


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--engine", "llama", "--model", "/nowhere.gguf"], "/nowhere.gguf"),
        (["--engine", "llama", "--run-dir", "/nowhere"], "run_dir"),
    ],
)
def test_a_setting_that_cant_be_is_one_line_and_exit_2(flags: list[str], told: str):
    with running(["ark-trio", "decoder", "--grpc-bind", "127.0.0.1:0", *flags]) as process:
        assert process.wait(10) == 2
        assert told in process.log
        assert "Traceback" not in process.log
