"""What the counting costs: a batch of tokens, a request, a scrape. Writes its figures into docs/metrics.md.

python bench/counting.py
"""

import logging
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from ark_trio.metrics import exposition
from ark_trio.metrics.tally import Reading
from ark_trio.protocol.step import Usage
from ark_trio.relay.book import Book
from ark_trio.relay.record import COMPLETED, Record

ROUNDS = 7
MODELS = 4
WORKERS = 4
PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BLOCK = re.compile(r"(<!-- cost -->\n).*?(<!-- /cost -->)", re.DOTALL)


def measure(work: Callable[[], object], times: int) -> float:
    """The median over the rounds of what one run costs, in µs."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            work()
        found.append((time.perf_counter() - began) / times * 1e6)
    return statistics.median(found)


def open_record(book: Book, model: str) -> Record:
    return Record(
        request_id="r",
        method="POST",
        path="/v1/chat/completions",
        model=model,
        tally=book.tally,
        models=book.models,
    )


def one_request(book: Book, model: str) -> None:
    now = trio.current_time()
    record = open_record(book, model)
    book.begin(record)
    record.queue()
    record.place()
    record.ask("127.0.0.1:62000")
    record.arrive(1, now, now)
    record.usage = Usage(prompt_tokens=10, completion_tokens=20)
    record.end(COMPLETED)
    book.end(record)


def stretches(readings: dict[str, Reading]) -> list[float]:
    """How long each part of a scrape takes, between which others run, in ms."""
    found, parts = [], exposition.expose(readings)
    while True:
        began = time.perf_counter()
        if next(parts, None) is None:
            return found
        found.append((time.perf_counter() - began) * 1e3)


async def main() -> None:
    # The log line is another matter.
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    book = Book()
    record = open_record(book, "m0")
    record.ask("127.0.0.1:62000")
    now = trio.current_time()
    batch = measure(lambda: record.arrive(8, now, now), 20_000)
    request = measure(lambda: one_request(book, "m0"), 2_000)
    for number in range(MODELS):
        one_request(book, f"m{number}")
    reading = book.tally.read()
    readings = {str(number): reading for number in range(1, WORKERS + 1)}
    rounds = [stretches(readings) for _ in range(ROUNDS)]
    whole = statistics.median(map(sum, rounds))
    longest = statistics.median(map(max, rounds))
    size = sum(map(len, exposition.expose(readings))) >> 10
    rows = (
        "| what | |",
        "| --- | --- |",
        f"| a batch of tokens, whatever their number | {batch:.2f} µs |",
        f"| a request: all of its counters and histograms | {request:.0f} µs |",
        f"| a scrape, {WORKERS} workers, {MODELS} models, {size} KiB | {whole:.0f} ms, in stretches of at most"
        f" {longest:.1f} ms between which streams go on |",
    )
    print("\n".join(rows))
    text = PAGE.read_text(encoding="utf-8")
    filled = BLOCK.sub(lambda found: "\n".join((found[1].rstrip(), *rows, found[2])), text)
    PAGE.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    trio.run(main)
