"""How many requests run and how many wait; beyond that they are refused at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ark_trio.errors import Overloaded


class Admission:
    """Bounded places to run and a bounded line before them, first come first served."""

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        self._places = trio.CapacityLimiter(max_running)
        self._max_waiting = max_waiting

    def resize(self, *, max_running: int, max_waiting: int) -> None:
        """Change the limits; those that run or wait already go on."""
        self._places.total_tokens = max_running
        self._max_waiting = max_waiting

    @property
    def running(self) -> int:
        """Requests that hold a place."""
        return self._places.borrowed_tokens

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._places.statistics().tasks_waiting

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for as long as the block lasts; the caller bounds the wait for it.

        Raises:
            Overloaded: the line is full.
        """
        if self._places.available_tokens < 1 and self.waiting >= self._max_waiting:
            raise Overloaded("Too many requests are waiting. Try again shortly.")
        async with self._places:
            yield
