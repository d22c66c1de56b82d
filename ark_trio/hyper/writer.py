"""The writing side of a connection: to the socket at once if it takes all, else into a buffer that a chore empties.

Who wrote waits for that, and may be cancelled meanwhile: nothing is ever left half written, which would break an HTTP/2
connection for its other streams. A client that takes no byte for `stalled_write_s` is given up.
"""

import os
from collections.abc import Callable
from typing import Any

import trio

from ark_trio.bell import Bell
from ark_trio.config import Limits
from ark_trio.hyper.chores import Chores

LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What is raised where the connection is gone."""
_WRITE_BYTES = 256 << 10
"""The most handed over at a time: a slow client's progress must be seen within the deadline."""
_WRITE_TLS_BYTES = 16 << 10


class Writer:
    """One connection's. It is the `Outlet` of its answers too."""

    __slots__ = (
        "_chores",
        "_emptying",
        "_give_up",
        "_limits",
        "_more",
        "_plain",
        "_progress",
        "_queued",
        "_stream",
        "_unsent",
        "_written",
        "lost",
    )

    def __init__(
        self, stream: Any, limits: Limits, chores: Chores, give_up: Callable[[int], None]
    ) -> None:
        self._stream = stream
        self._plain = isinstance(stream, trio.SocketStream)
        self._limits = limits
        self._chores = chores
        self._give_up = give_up
        """Told how many bytes a client that has stalled has not taken; has the connection lost."""
        self._unsent = bytearray()
        self._written = 0
        """Bytes that left the buffer since the beginning."""
        self._queued = 0
        """Bytes that entered it."""
        self._emptying = False
        self._more = Bell()
        self._progress = Bell()
        self.lost = False
        """Nothing can be written any more."""

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Return once `data` is in the kernel's hands, or the connection is lost. A checkpoint, but perhaps for an answer's `last`."""
        # What HTTP/2 says before it has read anything has nobody yet who empties the buffer; under TLS it can't go out by itself.
        if not self._write_or_keep(data) and self._chores.going:
            await self.drained()
        elif not last:
            await trio.lowlevel.checkpoint()

    def push(self, data: bytes) -> bool:
        """Write a chunk of the body; see `Outlet`. h11 is passed over: between two chunks it knows nothing that it must."""
        return self._write_or_keep(b"%x\r\n%b\r\n" % (len(data), data))

    async def drained(self) -> None:
        """Wait until all that entered the buffer so far has left it, or is lost. Always a checkpoint."""
        mark = self._queued
        while self._written < mark and not self.lost:
            await self._progress.heard()
        await trio.lowlevel.checkpoint()

    def write_now(self, data: bytes) -> int:
        """Write what the socket takes without waiting; no task switch where the client keeps up."""
        if not self._plain:
            return 0
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self.lose()
            return 0

    def lose(self) -> None:
        """Nothing can be written any more; whoever waits for that goes on."""
        self.lost = True
        self._unsent.clear()
        self._more.ring()
        self._progress.ring()

    def empty_soon(self) -> None:
        """Have what waits written. Most clients keep up, so the task is there only once it was needed."""
        if self._unsent:
            self._more.ring()
            self._emptying = self._emptying or self._chores.start(self._empty_buffer)

    def _write_or_keep(self, data: bytes) -> bool:
        """Write as much as the socket takes, if nothing waits, and put the rest into the buffer. False: there was a rest."""
        if data and not self.lost and not self._unsent:
            data = data[self.write_now(data) :]
        if self.lost or not data:
            return True
        self._unsent += data
        self._queued += len(data)
        self.empty_soon()
        return False

    async def _empty_buffer(self) -> None:
        """Write what waits, for as long as the connection lives."""
        while not self.lost:
            if not self._unsent:
                await self._more.heard()
            with trio.move_on_after(self._limits.stalled_write_s):
                await self._write_some()
                continue
            self._give_up(len(self._unsent))

    async def _write_some(self) -> None:
        try:
            if self._plain:
                count = await self._stream.socket.send(self._unsent[:_WRITE_BYTES])
            else:
                chunk = bytes(self._unsent[:_WRITE_TLS_BYTES])
                await self._stream.send_all(chunk)
                count = len(chunk)
        except LOST:
            self.lose()
            return
        del self._unsent[:count]
        self._written += count
        self._progress.ring()
