"""Lets the tokens of one decode step leave together.

llama.cpp computes a token of every running slot in one step, but its HTTP threads hand them over one by one, a
millisecond or so apart. Written as they come they cost every reader downstream a wake-up each (measured with four
streams: 1.4 messages a read).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

WINDOW_S = 0.004
"""The longest that a token waits for the others of its step; a step takes about 15 ms on a CPU."""


class StepGate:
    """Where the running streams meet once a step. A stream that runs alone never waits."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._members = 0
        self._waiting = 0
        self._open = trio.Event()

    @contextmanager
    def member(self) -> Iterator[None]:
        """Count as a running stream while the block runs."""
        self._members += 1
        try:
            yield
        finally:
            self._members -= 1
            self._release_if_all_here()

    async def pass_together(self) -> None:
        """Wait until every running stream is here, or the window has passed."""
        self._waiting += 1
        gate = self._open
        self._release_if_all_here()
        try:
            with trio.move_on_after(self._window_s):
                await gate.wait()
        finally:
            if not gate.is_set():  # the window has passed, or this stream is cancelled
                self._release()

    def _release_if_all_here(self) -> None:
        if self._waiting >= self._members:
            self._release()

    def _release(self) -> None:
        self._open.set()
        self._open = trio.Event()
        self._waiting = 0
