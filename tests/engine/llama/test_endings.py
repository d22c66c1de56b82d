"""What runs on a real engine when it is told to end, when its prefiller hangs, and by TLS between the two."""

import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from ark_trio.config import GrpcSettings, Settings
from ark_trio.errors import Unavailable
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.options import channel_options
from tests.support.certificates import Authority
from tests.support.llama import Answer, ask, chat, seconds_until_free, status
from tests.support.processes import Served, engine, free_port, listens

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

LONG = "Tell me about " + " ".join(f"town number {number}," for number in range(60))
"""About 400 tokens: seconds of prefill."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Starts engines, which end with the test."""
    flags = ("--context-tokens", "1024", "--threads", "1", "--run-dir", str(tmp_path))
    with ExitStack() as stack:

        def start(role: str, *more: str) -> Served:
            return stack.enter_context(engine(role, *flags, *more, driver="llama"))

        yield start


@asynccontextmanager
async def calling(
    process: Served, host: str = "127.0.0.1", **grpc: Any
) -> AsyncIterator[ArkChannel]:
    options = channel_options(Settings(grpc=GrpcSettings(**grpc)))
    async with open_bridge() as bridge:
        async with open_channel(bridge, host, process.port, options) as channel:
            yield channel


async def busy(channel: ArkChannel) -> None:
    with trio.fail_after(10):
        while not (await status(channel))["busy"]:
            await trio.sleep(0.01)


async def ended(process: Served) -> int:
    return await trio.to_thread.run_sync(process.wait, 10)


async def metrics(port: int) -> dict[str, float]:
    async with httpx2.AsyncClient() as http:
        page = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    found = re.findall(r"^ark_engine_(\S+) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_sigterm_lets_those_that_speak_and_those_in_line_finish_and_refuses_others(
    started: Any,
):
    scrapes = free_port()
    process = started("decoder", "--slots", "1", "--engine-metrics-bind", f"127.0.0.1:{scrapes}")
    answers: dict[str, Answer] = {}

    async def run(name: str, channel: ArkChannel, began: trio.Event | None = None) -> None:
        asked = chat("Tell me a story.", max_new_tokens=120, ignore_eos=True)
        answers[name] = await ask(channel, asked, began=began)

    async with calling(process) as channel:
        async with trio.open_nursery() as nursery:
            began = trio.Event()
            nursery.start_soon(run, "speaks", channel, began)
            await began.wait()
            nursery.start_soon(run, "waits", channel)
            while not (await status(channel))["queued"]:
                await trio.sleep(0.01)
            process.signal(signal.SIGTERM)
            while listens(process.port):
                await trio.sleep(0.01)
            await run("late", channel)
            told = await metrics(scrapes)
        assert await ended(process) == 0, process.log
    assert isinstance(answers["late"].error, Unavailable)
    for name in ("speaks", "waits"):
        assert (answers[name].error, answers[name].finishes) == (None, ["length"]), name
        assert answers[name].usage.completion_tokens == 120
    assert (told["slots_busy"], told["queued"]) == (1, 1)


async def keep(answers: list[Answer], channel: ArkChannel) -> None:
    """Ask what takes a while to prefill."""
    answers.append(await ask(channel, chat(LONG, max_new_tokens=2)))


async def test_sigterm_lets_a_prefill_finish_and_refuses_the_next(started: Any):
    prefiller = started("prefiller")
    decoder = started("decoder", "--prefillers", f"127.0.0.1:{prefiller.port}")
    answers: list[Answer] = []
    async with calling(decoder) as channel, calling(prefiller) as its_own:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, answers, channel)
            await busy(its_own)
            prefiller.signal(signal.SIGTERM)
            while listens(prefiller.port):
                await trio.sleep(0.01)
            late = await ask(channel, chat("Hi.", max_new_tokens=1))
        assert await ended(prefiller) == 0, prefiller.log
        assert isinstance(late.error, Unavailable)
        assert (answers[0].error, answers[0].finishes) == (None, ["length"])
        assert answers[0].timings[0]["kv_bytes"] > 0
        assert await seconds_until_free(channel) < 1


async def test_a_prefiller_that_hangs_is_given_up_by_its_silence_and_good_again_after_it(
    started: Any,
):
    prefiller = started("prefiller")
    decoder = started(
        "decoder",
        *("--prefillers", f"127.0.0.1:{prefiller.port}", "--local-prefill"),
        *("--grpc-ping-s", "1", "--grpc-ping-timeout-s", "1"),
    )
    answers: list[Answer] = []
    async with calling(decoder) as channel, calling(prefiller) as its_own:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, answers, channel)
            await busy(its_own)
            prefiller.signal(signal.SIGSTOP)
        assert answers[0].error is None
        assert "local_prefill_ms" in answers[0].timings[0]
        prefiller.signal(signal.SIGCONT)
        assert await seconds_until_free(its_own) < 5
        await trio.sleep(2)  # it is asked last for so long
        again = await ask(channel, chat("Hi.", max_new_tokens=1))
        assert again.timings[0]["kv_bytes"] > 0


async def test_a_state_moves_by_tls_between_engines_that_show_their_certificates(
    started: Any, tmp_path: Path
):
    ours, strangers = Authority(tmp_path / "ours"), Authority(tmp_path / "strangers")

    def tls(name: str, authority: Authority = ours) -> tuple[str, ...]:
        return (
            "--grpc-tls=1",
            f"--grpc-ca={ours.file}",
            f"--grpc-cert={authority.issue(name, 'localhost')}",
        )

    prefiller = started("prefiller", *tls("prefiller"))
    asked = ("--prefillers", f"localhost:{prefiller.port}")
    good, stranger = (
        started("decoder", *asked, "--prefiller-wait-s=0", *tls("decoder", authority))
        for authority in (ours, strangers)
    )
    own = {"tls": True, "ca": ours.file, "cert": ours.issue("gateway", "gateway")}
    async with calling(good, "localhost", **own) as channel:
        answer = await ask(channel, chat("Hi.", max_new_tokens=2))
        assert answer.error is None
        assert answer.timings[0]["kv_bytes"] > 0
        assert answer.timings[0]["prompt_evaluated"] == 1
    async with calling(stranger, "localhost", **{**own, "ca": strangers.file}) as channel:
        refused = await ask(channel, chat("Hi.", max_new_tokens=2))
        assert isinstance(refused.error, Unavailable)
