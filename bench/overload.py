"""What ten times too many requests do to those that were admitted: `python bench/overload.py`.

A gateway with a limited number of places in front of the echo engine, which answers as a model would: 100 ms to the first
token, 20 tokens a second. Without overload all places are taken and nobody else asks; with it ten times as many requests
arrive as there is room for, evenly, each on a connection of its own. Rounds of both take turns; medians of the rounds are
compared: one gateway on a core of its own, and all at real-time priority where that may be had, so that the gateway is measured
and not what else its machine does. Prints the figures, writes them into docs/operations.md with `--write`, and exits with 1 if a goal is missed.
"""

import argparse
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio
from attrs import Factory, define

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.processes import engine, gateway
from tests.support.wire import chat, post

PLACES = 24
TOKENS = 40
GAP_S = 0.05
FIRST_S = 0.1
ANSWER_S = FIRST_S + TOKENS * GAP_S
OVERLOAD = 10
ROUND_S = 10.0
WARM_S = 2.5
ROUNDS = 3
GOAL_RATIO = 1.3
GOAL_REFUSAL_MS = 5.0
PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
REQUEST = post(
    chat(f"count={TOKENS} gap_s={GAP_S} first_delay_s={FIRST_S}"), headers="connection: close\r\n"
)


@define
class Seen:
    """What the clients of a round have seen, in seconds."""

    first: list[float] = Factory(list)
    gaps: list[float] = Factory(list)
    refusals: list[float] = Factory(list)
    others: list[bytes] = Factory(list)


async def ask(port: int, seen: Seen) -> None:
    """Make one request and read it to its end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        began = last = time.perf_counter()
        await stream.send_all(REQUEST)
        data, tokens = bytearray(), 0
        while piece := await stream.receive_some(65536):
            now = time.perf_counter()
            data += piece
            if piece.count(b'"content":"') > piece.count(b'"content":""'):
                tokens += 1
                (seen.first if tokens == 1 else seen.gaps).append(
                    now - (began if tokens == 1 else last)
                )
                last = now
    head = bytes(data[:13])
    if head == b"HTTP/1.1 429 ":
        if b"retry-after: " not in data.lower():
            seen.others.append(bytes(data[:300]))
        seen.refusals.append(now - began)
    elif b"data: [DONE]" not in data or b'"error"' in data:
        seen.others.append(bytes(data[:300]))


async def keep_asking(port: int, seen: Seen) -> None:
    while True:
        await ask(port, seen)


async def arrive(port: int, seen: Seen, per_s: float) -> None:
    """Have requests come evenly, whatever becomes of them."""
    async with trio.open_nursery() as nursery:
        due = trio.current_time()
        while True:
            nursery.start_soon(ask, port, seen)
            due += 1 / per_s
            await trio.sleep_until(due)


async def play(port: int, *, overloaded: bool) -> Seen:
    """Run one round."""
    warm, seen = Seen(), Seen()
    with trio.move_on_after(ROUND_S):
        async with trio.open_nursery() as nursery:
            if overloaded:
                nursery.start_soon(arrive, port, seen, OVERLOAD * PLACES / ANSWER_S)
            else:
                for number in range(PLACES):
                    nursery.start_soon(keep_asking, port, seen)
                    await trio.sleep(ANSWER_S / PLACES * (number > 0))
            await trio.sleep(WARM_S)
            # What the start brings is the load's own doing, the same either way.
            for kept in ("first", "gaps", "refusals"):
                getattr(warm, kept).extend(getattr(seen, kept))
                getattr(seen, kept).clear()
    return seen


def p99_ms(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98] * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    args = parser.parse_args()
    rounds, own = measure()
    text, reached = report(rounds, own)
    print(f"\n{text}")
    if args.write:
        write(text)
    return 0 if reached else 1


def measure() -> tuple[dict[bool, list[Seen]], list[float]]:
    """Run all rounds; return what clients saw, overloaded or not, and the gateway's own times of its refusals."""
    env = {"ARK_MAX_REQUESTS": str(PLACES), "ARK_MAX_WAITING": "0", "ARK_LOG_FORMAT": "json"}
    rounds: dict[bool, list[Seen]] = {False: [], True: []}
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port], env=env) as door:
            # The gateway has a core, its clients and the engine another: it is the gateway that is measured.
            core, *others = sorted(os.sched_getaffinity(0))
            for pid, cores in ((door.popen.pid, {core}), (decoder.popen.pid, others), (0, others)):
                os.sched_setaffinity(pid, cores or {core})
                with suppress(
                    PermissionError
                ):  # else what others do on this machine is measured too
                    os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
            for overloaded in (False, True) * ROUNDS:
                seen = trio.run(lambda o=overloaded: play(door.port, overloaded=o))
                if seen.others:
                    raise SystemExit(f"neither an answer nor a refusal: {seen.others[0]!r}")
                rounds[overloaded].append(seen)
                print(said(seen, overloaded=overloaded), flush=True)
            return rounds, own_times(door.log)


def report(rounds: Mapping[bool, Sequence[Seen]], own: Sequence[float]) -> tuple[str, bool]:
    """Return the figures as Markdown, and whether they reach the goals."""
    refusals = [each for seen in rounds[True] for each in seen.refusals]
    median_ms = statistics.median(refusals) * 1000
    ratios = []
    lines = [
        "| p99, ms | all places taken | ten times as many arrive | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for what, text in (("first", "first token"), ("gaps", "between tokens")):
        calm, loaded = (
            statistics.median(p99_ms(getattr(seen, what)) for seen in rounds[overloaded])
            for overloaded in (False, True)
        )
        ratios.append(loaded / calm)
        lines.append(f"| {text} | {calm:.1f} | {loaded:.1f} | {loaded / calm:.2f} |")
    lines.append(
        f"\nThe refusals, {len(refusals):,} of them: median {median_ms:.1f} ms, 99th percentile"
        f" {p99_ms(refusals):.1f} ms as their clients see it, connecting not counted; in the gateway itself median"
        f" {statistics.median(own) * 1000:.1f} ms, 99th percentile {p99_ms(own):.1f} ms."
    )
    return "\n".join(lines), max(ratios) <= GOAL_RATIO and p99_ms(refusals) < GOAL_REFUSAL_MS


def own_times(log: str) -> list[float]:
    """Return how long each refusal took in the gateway, by its log."""
    lines = (json.loads(line) for line in log.splitlines() if '"outcome":"overloaded"' in line)
    return [line["total_s"] for line in lines]


def said(seen: Seen, *, overloaded: bool) -> str:
    text = f"first p99 {p99_ms(seen.first):.1f} ms, gaps p99 {p99_ms(seen.gaps):.1f} ms"
    if overloaded:
        median_ms = statistics.median(seen.refusals) * 1000
        text += f", {len(seen.refusals)} refused in {median_ms:.1f} ms (median)"
    return f"{'overloaded' if overloaded else 'calm':10} {len(seen.first)} admitted, {text}"


def write(text: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    block = re.compile(r"(<!-- overload -->\n).*?(\n<!-- /overload -->)", re.DOTALL)
    PAGE.write_text(block.sub(lambda found: f"{found[1]}{text}{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
