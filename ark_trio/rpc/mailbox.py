"""A bounded mailbox: what a call brings, waiting for the task that reads it.

Where the engine's connection is read, messages are put in and the reader is woken once; it takes all that waits in one go.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import trio

from ark_trio.bell import Bell
from ark_trio.errors import ArkError

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Sink(Protocol[M_contra]):
    """Where a call puts what it receives. The first `end` or `fail` is final; later words are ignored."""

    def feed(self, message: M_contra, size: int = 0) -> bool:
        """Take one message of `size` bytes. False: full, so await `room` before the next."""

    def flush(self) -> None:
        """What has been fed since the last time is all for now."""

    async def room(self) -> None:
        """Wait until there is room. Trio-flavoured."""

    def end(self) -> None:
        """The call ended well."""

    def fail(self, error: ArkError) -> None:
        """The call ended badly."""


class Tap(Protocol[M_contra]):
    """Takes messages where they arrive, in the reader's place."""

    def feed(self, message: M_contra, size: int = 0) -> bool:
        """Take one message; False: `flush` before the next. Raises nothing."""

    def flush(self) -> bool:
        """What has been fed is all for now. False: the reader is to take over. Raises nothing."""


class FailingSink(Sink[M_contra], Protocol[M_contra]):
    """A sink that can say how it was closed."""

    error: ArkError | None
    """What `fail` was given first."""


class Kept(Generic[M]):
    """A sink that keeps what it is fed; for calls that answer with one message."""

    def __init__(self) -> None:
        self.messages: list[M] = []

    def feed(self, message: M, size: int = 0) -> bool:  # noqa: ARG002 (a message has its own limit)
        """Keep the first message; more than that is not asked for."""
        if not self.messages:
            self.messages.append(message)
        return True

    def flush(self) -> None:
        """Nobody waits."""

    async def room(self) -> None:
        """There always is. Trio-flavoured."""
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """Nobody waits."""

    def fail(self, error: ArkError) -> None:
        """Nobody waits."""


class Mailbox(Generic[M]):
    """A sink that one Trio task reads in batches."""

    __slots__ = (
        "_arrived",
        "_bytes",
        "_ended",
        "_limit",
        "_limit_bytes",
        "_room",
        "_tap",
        "_waiting",
        "arrived",
        "error",
    )

    def __init__(self, limit: int = 64, limit_bytes: int = 64 << 10) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._waiting: list[M] = []
        self._ended = False
        self.error: ArkError | None = None
        """What `fail` was given first."""
        self.arrived = 0.0
        """When the first came of what waits, or was taken last."""
        self._arrived = Bell()
        self._room = Bell()
        self._tap: Tap[M] | None = None

    def feed(self, message: M, size: int = 0) -> bool:
        """Take one message; see `Sink`.

        When the caller heeds the answer, at most `limit` messages wait, and `limit_bytes` and one message.
        """
        if self._ended:
            return True
        if self._tap is not None:
            return self._tap.feed(message, size)
        if not self._waiting:
            self.arrived = trio.current_time()
        self._waiting.append(message)
        self._bytes += size
        # As `_full`, without the call: a batch has many messages.
        return len(self._waiting) < self._limit and self._bytes < self._limit_bytes

    def flush(self) -> None:
        """Wake the reader, unless the tap has taken all."""
        if self._tap is not None and not self._tap.flush():
            self._tap = None
            self._arrived.ring()
        if self._waiting:
            self._arrived.ring()

    async def room(self) -> None:
        """Wait until the reader has taken what waits. Trio-flavoured."""
        if self._full and not self._ended:
            await self._room.heard()  # several calls may wait at once
        else:
            await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """No more will come."""
        self._close(None)

    def fail(self, error: ArkError) -> None:
        """No more will come, because of `error`. Callable from either flavour."""
        self._close(error)

    async def take(self) -> list[M]:
        """Return all messages that wait, at least one; `[]` at the end. Trio-flavoured, always a checkpoint.

        Raises:
            ArkError: what `fail` was given, once the messages before it have been taken.
        """
        if self._waiting or self._ended:
            await trio.lowlevel.checkpoint()
        else:
            await self._arrived.heard()
        batch, self._waiting = self._waiting, []
        self._bytes = 0
        self._room.ring()
        if not batch and self.error is not None:
            raise self.error
        return batch

    @contextmanager
    def tapped(self, tap: Tap[M]) -> Iterator[None]:
        """Have `tap` take what comes, until it refuses or the block ends; nothing overtakes what waits already."""
        if not self._waiting and not self._ended:
            self._tap = tap
        try:
            yield
        finally:
            self._tap = None

    async def stirred(self) -> None:
        """Wait until there is something for the reader, other than for its tap. Trio-flavoured, always a checkpoint."""
        if self._tap is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._arrived.heard()

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= self._limit or self._bytes >= self._limit_bytes

    def _close(self, error: ArkError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._tap = None  # the reader may be between two waits: the next must not begin
        self.error = error
        self._arrived.ring()
        self._room.ring()
