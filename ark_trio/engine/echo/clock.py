"""One clock for all streams: what falls due together is said together.

A continuous-batching engine computes a token of every stream in one decode step. Streams with the same gap therefore
share a grid of instants here, and a step hands over all their messages without giving up the processor, so a
connection's frames leave in one write.
"""

import heapq
import math
from collections.abc import Callable
from itertools import count

import trio
from attrs import define, field


@define(order=True)
class _Turn:
    due: float
    order: int
    """Breaks ties, in order of arrival."""
    step: Callable[[], bool] = field(order=False)
    gap_s: float = field(order=False)
    stopped: trio.Event = field(order=False, factory=trio.Event)
    dead: bool = field(order=False, default=False)


class StepClock:
    """Calls every player's `step` when it is due. `run` must run in some task."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._order = count()
        self._changed = trio.Event()

    async def play(self, step: Callable[[], bool], *, gap_s: float, delay_s: float = 0.0) -> None:
        """Have `step` called every `gap_s` until it returns False. Cancelled, it isn't called any more.

        `step` must not raise: it would end the clock.
        """
        due = _on_grid(trio.current_time() + delay_s, gap_s)
        turn = _Turn(due, next(self._order), step, gap_s)
        heapq.heappush(self._turns, turn)
        self._changed.set()
        try:
            await turn.stopped.wait()
        finally:
            turn.dead = True

    async def run(self) -> None:
        """Drive the players until cancelled."""
        while True:
            if not self._turns:
                self._changed = trio.Event()
                await self._changed.wait()
            await self._wait_for_first()
            self._step(trio.current_time())

    async def _wait_for_first(self) -> None:
        self._changed = trio.Event()
        with trio.move_on_at(self._turns[0].due):
            await self._changed.wait()

    def _step(self, now: float) -> None:
        due = []
        while self._turns and self._turns[0].due <= now:
            due.append(heapq.heappop(self._turns))
        for turn in due:
            if turn.dead:
                continue
            if turn.step():
                # Half a gap on, so that rounding can't name the instant just played; late, it skips what it missed.
                turn.due = _on_grid(max(turn.due, now) + turn.gap_s / 2, turn.gap_s)
                heapq.heappush(self._turns, turn)
            else:
                turn.stopped.set()


def _on_grid(instant: float, gap_s: float) -> float:
    """Return the first instant of the gap's grid from `instant` on; equal gaps give equal floats."""
    return math.ceil(instant / gap_s) * gap_s if gap_s > 0 else instant
