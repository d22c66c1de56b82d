"""The short way of a streamed answer: spelled where it is read from the engine, written there to the client's socket.

While the client keeps up, no task runs for a token. The task that answers the request owns the way: it opens it, sleeps, and
takes over for what is more than the common case, a client that is slow, silence, an error, the end.
"""

from typing import Generic, Protocol, TypeVar

from ark_trio.relay.spelling import Spelling
from ark_trio.relay.steps import Steps

M = TypeVar("M")


class Outlet(Protocol):
    """The client's end."""

    def push(self, data: bytes) -> bool:
        """Write a piece of the answer's body now. False: the client is slow; wait until `drained` before the next."""

    async def drained(self) -> None:
        """Wait until all that was pushed is out, or can't be written any more. Always a checkpoint."""


class Push(Generic[M]):
    """One stream's short way."""

    __slots__ = ("_outlet", "_spelling", "_steps")

    def __init__(self, steps: Steps[M], spelling: Spelling[M], outlet: Outlet) -> None:
        self._steps = steps
        self._spelling = spelling
        self._outlet = outlet

    async def run(self, patience_s: float) -> bool:
        """Push until the caller is wanted. False: nothing has come for `patience_s`.

        Raises:
            DeadlineExceeded: the engine took too long.
        """
        if self._spelling.failure is not None:
            return True
        heard = await self._steps.pass_to(self, patience_s)
        await self._outlet.drained()
        return heard

    def feed(self, message: M, size: int = 0) -> bool:  # noqa: ARG002 (what counts is what becomes of it)
        """Spell one message; False: enough for one write."""
        return self._spelling.add(message)

    def flush(self) -> bool:
        """Write what has been spelled; False: the owner is to take over."""
        piece, count = self._spelling.piece()
        if count:
            self._steps.hear(count)
        keeps_up = not piece or self._outlet.push(piece)
        return keeps_up and self._spelling.failure is None
