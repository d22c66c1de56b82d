"""What is counted of requests while they run and when they end."""

from typing import Any

import pytest
import trio

from ark_trio.metrics import catalogue as metrics
from ark_trio.protocol.step import Usage
from ark_trio.relay.book import Book
from ark_trio.relay.record import Record

COUNTED = (
    metrics.PROMPT_TOKENS,
    metrics.CACHED_TOKENS,
    metrics.GENERATED_TOKENS,
    metrics.REASONING_TOKENS,
)


async def counted(*told: Usage | int) -> list[Any]:
    """Return the counts after each of an engine's words: totals, or so many messages without any."""
    book = Book()
    record = Record(
        request_id="r", method="POST", path="/", model="m", tally=book.tally, models=book.models
    )
    book.begin(record)
    record.ask("decoder")
    found = []
    for word in told:
        if isinstance(word, int):
            record.messages = word
        else:
            record.usage = word
        book.count_so_far()
        read = book.tally.read()
        found.append(tuple(dict(read.get(metric.name, ())).get(("m",)) for metric in COUNTED))
    await trio.lowlevel.checkpoint()
    return found


def usage(prompt: int, completion: int, **more: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        (
            [usage(3, 1, cached_tokens=2), usage(3, 5, cached_tokens=2)],
            [(3, 2, 1, 0), (3, 2, 5, 0)],
        ),
        ([usage(3, 5), usage(3, 2), usage(3, 6)], [(3, 0, 5, 0), (3, 0, 5, 0), (3, 0, 6, 0)]),
        ([usage(9, 1), usage(3, 4, reasoning_tokens=2)], [(9, 0, 1, 0), (9, 0, 4, 2)]),
        ([2, usage(3, 4)], [(0, 0, 2, 0), (3, 0, 4, 0)]),
        ([0, usage(0, 0)], [(None,) * 4] * 2),
    ],
    ids=["totals that grow", "downwards and back", "one down, one up", "messages first", "nothing"],
)
async def test_tokens_are_counted_once_and_never_taken_back(told: Any, counts: Any):
    assert await counted(*told) == counts
