"""The engine's slots: a fixed number, each held by one call at a time, with a bounded queue before them."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from attrs import define, field

from ark_trio.errors import ArkError, Overloaded

log = structlog.get_logger()

RECLAIM_S = 60.0
"""A slot that has not come to rest by then is handed out again: llama.cpp itself makes its next user wait."""
_POLL_S = 0.02


@define(eq=False)
class _Waiter:
    """A call that waits."""

    slot: int | None = None
    came: trio.Event = field(factory=trio.Event)


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
        self._free = list(range(count))
        """Those that have been free for longest come first."""
        self._waiters: deque[_Waiter] = deque()
        self._at_work: set[int] = set()

    @property
    def busy(self) -> int:
        """Slots held by calls, or still computing for one that has ended."""
        return self.count - len(self._free)

    @property
    def queued(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self, fits: Callable[[int], int] = lambda _: 0) -> AsyncIterator[int]:
        """Hold a slot while the block runs: of the free ones the one that `fits` best, or else has been free for longest.

        Raises:
            Overloaded: too many wait already.
        """
        number = await self._take(fits)
        clean = False
        try:
            yield number
            clean = number not in self._at_work
        finally:
            self._at_work.discard(number)
            if clean:
                self._give(number)
            else:
                # llama.cpp notices at its next batch; the caller, gone or told, need not wait for that.
                self._nursery.start_soon(self._reclaim, number)

    def mark_at_work(self, number: int) -> None:
        """Tell that llama.cpp still computes for a slot that is held, though its holder has what it wanted."""
        self._at_work.add(number)

    async def _take(self, fits: Callable[[int], int]) -> int:
        await trio.lowlevel.checkpoint()
        if self._free:
            number = max(self._free, key=fits)
            self._free.remove(number)
            return number
        if len(self._waiters) >= self._max_waiting:
            raise Overloaded("All slots are taken and the queue is full.")
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.came.wait()
        except trio.Cancelled:
            if waiter.slot is None:
                self._waiters.remove(waiter)
            else:
                self._give(waiter.slot)
            raise
        assert waiter.slot is not None  # noqa: S101 (it came)
        return waiter.slot

    def _give(self, number: int) -> None:
        self._on_free(number)
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.slot = number
            waiter.came.set()
        else:
            self._free.append(number)

    async def _reclaim(self, number: int) -> None:
        """Free a slot once nothing is computed for it any more."""
        with trio.move_on_after(RECLAIM_S):
            try:
                while not await self._at_rest(number):  # noqa: ASYNC110 (llama.cpp tells nobody)
                    await trio.sleep(_POLL_S)
            except ArkError as error:
                log.warning("slot_state_unknown", slot=number, reason=error.message)
        self._give(number)
