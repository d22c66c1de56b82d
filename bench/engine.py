"""What the CPU engine does on this machine, split and not: `make bench-engine` writes the table into docs/engine.md.

Each figure is the median of a few rounds in which the ways that are compared take turns. Rates are by llama.cpp's own
timings, times as an ARK client sees them on loopback.
"""

import os
import re
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio
from attrs import define

sys.path.insert(0, str(Path(__file__).parents[1]))

from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from tests.support.llama import Answer, ask, chat
from tests.support.processes import Served, engine

PAGE = Path(__file__).parents[1] / "docs" / "engine.md"
FLAGS = ("--slots", "8", "--context-tokens", "2048", "--threads", "1")
ROUNDS = 3
SHORT = "Please tell me in a few words: " + "what is a river, " * 8
LONG = "Here are numbers: " + " ".join(str(number) for number in range(280))
NEXT = "And which of these is the largest?"


@define
class Timed:
    """An answer, and when its first message came."""

    answer: Answer
    first_ms: float

    @property
    def facts(self) -> dict[str, Any]:
        return self.answer.timings[0]


async def timed(channel: ArkChannel, *contents: str, **inputs: Any) -> Timed:
    began, first = trio.current_time(), trio.Event()
    result: list[Answer] = []
    came: list[float] = []

    async def wait() -> None:
        await first.wait()
        came.append((trio.current_time() - began) * 1000)

    async def run() -> None:
        result.append(await ask(channel, chat(*contents, **inputs), began=first))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(run)
    if result[0].error is not None:
        raise result[0].error
    return Timed(result[0], came[0])


class Figures:
    """Rows of the table."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def add(self, what: str, split: str, single: str = "") -> None:
        self.rows.append(f"| {what} | {split} | {single} |")
        print(self.rows[-1], flush=True)


def fresh() -> str:
    """A salt of its own: nothing is cached."""
    return os.urandom(4).hex()


def median(values: list[float]) -> float:
    return statistics.median(values)


async def first_tokens(figures: Figures, split: ArkChannel, single: ArkChannel) -> None:
    for prompt in (SHORT, LONG):
        both: list[list[Timed]] = [[], []]
        for _ in range(ROUNDS):
            for runs, channel in zip(both, (split, single), strict=True):
                runs.append(await timed(channel, prompt, max_new_tokens=1, cache_salt=fresh()))
        tokens = both[0][0].answer.usage.prompt_tokens
        texts = [f"{median([run.first_ms for run in runs]) / 1000:.2f} s" for runs in both]
        facts = [run.facts for run in both[0]]
        moved = ", ".join(
            f"{name} {median([fact[key] for fact in facts]):.0f} ms"
            for name, key in (
                ("prefill", "prefill_ms"),
                ("transfer", "transfer_ms"),
                ("restore", "restore_ms"),
            )
        )
        size = f"{facts[0]['kv_bytes'] / 1e6:.1f} MB"
        figures.add(
            f"first token, prompt of {tokens:,} tokens", f"{texts[0]} ({moved}; {size})", texts[1]
        )
    rate = median([fact["prefill_evaluated"] / fact["prefill_ms"] * 1000 for fact in facts])
    local = median(
        [run.answer.usage.prompt_tokens / run.facts["local_prefill_ms"] * 1000 for run in both[1]]
    )
    figures.add("prefill", f"{rate:.0f} tokens/s", f"{local:.0f} tokens/s")
    evaluated = max(run.facts["prompt_evaluated"] for run in both[0])
    figures.add("prompt tokens that the decoder evaluates", f"{evaluated}", "all")


async def second_turn(figures: Figures, split: ArkChannel, single: ArkChannel) -> None:
    texts = []
    for channel in (split, single):
        salt = fresh()
        one = await timed(channel, LONG, max_new_tokens=8, cache_salt=salt)
        turns = (LONG, one.answer.text(), NEXT)
        two = await timed(channel, *turns, max_new_tokens=1, cache_salt=salt)
        usage = two.answer.usage
        new = usage.prompt_tokens - (usage.cached_tokens or 0)
        texts.append(
            f"{new} of {usage.prompt_tokens:,} computed, first token {two.first_ms / 1000:.2f} s"
        )
    figures.add("second turn", *texts)


async def decode(figures: Figures, split: ArkChannel, single: ArkChannel) -> None:
    texts: list[list[str]] = [[], []]
    for column, channel in zip(texts, (split, single), strict=True):
        for streams, tokens in ((1, 128), (8, 48)):
            rates = []
            for _ in range(ROUNDS):
                runs: list[Timed] = []

                async def run(channel: ArkChannel, tokens: int, runs: list[Timed]) -> None:
                    asked = {"max_new_tokens": tokens, "ignore_eos": True}
                    runs.append(await timed(channel, "Tell me a story.", **asked))

                async with trio.open_nursery() as nursery:
                    for _ in range(streams):
                        nursery.start_soon(run, channel, tokens, runs)
                rates.append(
                    sum(r.facts["predicted"] / r.facts["predicted_ms"] * 1000 for r in runs)
                )
            column.append(f"{median(rates):.0f} tokens/s")
    for number, what in enumerate(("decode, one stream", "decode, eight streams in all")):
        figures.add(what, texts[0][number], texts[1][number])


async def fairness(figures: Figures, split: ArkChannel, single: ArkChannel) -> None:
    texts = []
    for channel in (split, single):
        alone = await timed(channel, "Hi!", max_new_tokens=1, cache_salt=fresh())
        firsts: list[Timed] = []
        async with trio.open_nursery() as nursery:

            async def run(channel: ArkChannel, firsts: list[Timed]) -> None:
                firsts.append(await timed(channel, LONG, max_new_tokens=1, cache_salt=fresh()))

            nursery.start_soon(run, channel, firsts)
            await trio.sleep(0.5)
            beside = await timed(channel, "Hi!", max_new_tokens=1, cache_salt=fresh())
        texts.append(
            f"{beside.first_ms / 1000:.2f} s (alone {alone.first_ms / 1000:.2f} s; the long one {firsts[0].first_ms / 1000:.2f} s)"
        )
    figures.add("first token of a short prompt beside a long one", *texts)


@asynccontextmanager
async def calling(*processes: Served) -> AsyncIterator[list[ArkChannel]]:
    async with open_bridge() as bridge:
        first, second = processes
        async with (
            open_channel(bridge, "127.0.0.1", first.port) as one,
            open_channel(bridge, "127.0.0.1", second.port) as two,
        ):
            yield [one, two]


async def measure(split: Served, single: Served) -> Figures:
    figures = Figures()
    async with calling(split, single) as (one, two):
        for channel in (one, two):
            await timed(channel, "Hi!", max_new_tokens=2)
        for part in (first_tokens, second_turn, decode, fairness):
            await part(figures, one, two)
    return figures


def write(figures: Figures) -> None:
    table = "\n".join(["| | split | one process |", "| --- | --- | --- |", *figures.rows])
    page = PAGE.read_text()
    block = re.compile(r"(<!-- figures -->\n).*?(\n<!-- /figures -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit("docs/engine.md has no place for the figures")
    PAGE.write_text(block.sub(lambda found: found[1] + table + found[2], page))


def main() -> None:
    with TemporaryDirectory(prefix="ark-bench-", dir="/dev/shm") as folder:
        flags = (*FLAGS, "--run-dir", folder)
        with engine("prefiller", *flags, driver="llama") as prefiller:
            at = ("--prefillers", f"127.0.0.1:{prefiller.port}")
            with (
                engine("decoder", *flags, *at, driver="llama") as split,
                engine("decoder", *flags, driver="llama") as single,
            ):
                write(trio.run(measure, split, single))


if __name__ == "__main__":
    main()
