"""What is measured all the time, whatever is asked: the event loop's lag and the garbage collector's pauses."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from ark_trio.metrics.catalogue import GC_PAUSE, LOOP_LAG
from ark_trio.metrics.tally import Tally

TICK_S = 0.25
"""A stretch in which nothing else ran is seen if a tick falls into it, so from here on always."""


async def watch_lag(tally: Tally) -> None:
    """Measure, until cancelled, how late sleeping ends."""
    lags = tally.distribution(LOOP_LAG)
    while True:
        due = trio.current_time() + TICK_S
        await trio.sleep_until(due)
        lags.add(trio.current_time() - due)


@contextmanager
def gc_watched(tally: Tally) -> Iterator[None]:
    """Measure each collection while the block lasts."""
    pauses = [tally.distribution(GC_PAUSE, str(generation)) for generation in range(3)]
    began = time.perf_counter()

    def note(phase: str, info: dict[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses[info["generation"]].add(time.perf_counter() - began)

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)
