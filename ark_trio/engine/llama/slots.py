"""The engine's slots: a fixed number, each held by one call at a time, with a bounded queue before them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from ark_trio.errors import ArkError, Overloaded

log = structlog.get_logger()

RECLAIM_S = 60.0
"""A slot that has not come to rest by then is handed out again: llama.cpp itself makes its next user wait."""
_POLL_S = 0.02


class SlotPool:
    """Slots 0 … count-1, first come, first served."""

    def __init__(
        self,
        count: int,
        *,
        max_waiting: int,
        at_rest: Callable[[int], Awaitable[bool]],
        nursery: trio.Nursery,
        on_free: Callable[[int], None] = lambda _slot: None,
    ) -> None:
        """`at_rest` tells whether llama.cpp has stopped computing for a slot; `nursery` is the engine's.

        `on_free` hears of a slot that is free, before its next holder does.
        """
        self.count = count
        self._max_waiting = max_waiting
        self._at_rest = at_rest
        self._nursery = nursery
        self._on_free = on_free
        # The channel's buffer holds the free slots; its receivers are the queue.
        self._give, self._take = trio.open_memory_channel[int](count)
        for number in range(count):
            self._give.send_nowait(number)

    @property
    def busy(self) -> int:
        """Slots held by calls, or still computing for one that has ended."""
        return self.count - self._take.statistics().current_buffer_used

    @property
    def queued(self) -> int:
        """Calls that wait for a slot."""
        return self._take.statistics().tasks_waiting_receive

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold a slot while the block runs.

        Raises:
            Overloaded: too many wait already.
        """
        if self.busy == self.count and self.queued >= self._max_waiting:
            raise Overloaded("All slots are taken and the queue is full.")
        number = await self._take.receive()
        clean = False
        try:
            yield number
            clean = True
        finally:
            if clean:
                self._free(number)
            else:
                # llama.cpp notices at its next batch; the caller, gone or told, need not wait for that.
                self._nursery.start_soon(self._reclaim, number)

    async def _reclaim(self, number: int) -> None:
        """Free a slot once nothing is computed for it any more."""
        with trio.move_on_after(RECLAIM_S):
            try:
                while not await self._at_rest(number):  # noqa: ASYNC110 (llama.cpp tells nobody)
                    await trio.sleep(_POLL_S)
            except ArkError as error:
                log.warning("slot_state_unknown", slot=number, reason=error.message)
        self._free(number)

    def _free(self, number: int) -> None:
        self._on_free(number)
        self._give.send_nowait(number)
