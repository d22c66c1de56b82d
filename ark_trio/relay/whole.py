"""An answer in one piece, collected where it is read from the engine.

The task that answers the request makes the call itself and wakes once, at the end: there is nothing to write before, so nothing
to hand from one task to another. The limits in time are one timer, which is put forward by what comes.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import trio

from ark_trio.config import Limits
from ark_trio.errors import ArkError, BadBackend
from ark_trio.protocol.step import Step
from ark_trio.relay.patience import Patience, too_slow
from ark_trio.relay.record import Record
from ark_trio.relay.steps import Decoder

M = TypeVar("M")


class Fold(Protocol):
    """Collects an answer in one piece, one a family of APIs."""

    def feed(self, step: Step) -> None:
        """Take one step."""

    def result(self) -> dict[str, Any]:
        """Return the answer."""


class Whole(Generic[M]):
    """The sink of a request's call, or of the parts that are its calls. It never is full."""

    __slots__ = (
        "_code",
        "_count",
        "_crash",
        "_decoder",
        "_ended",
        "_fold",
        "_missed",
        "_patience",
        "_record",
        "_timer",
        "error",
    )

    def __init__(self, decoder: Decoder[M], fold: Fold, limits: Limits, record: Record) -> None:
        self._decoder = decoder
        self._fold = fold
        self._record = record
        self._patience = Patience(limits, record)
        self._timer = trio.CancelScope()
        self._code = ""
        """Of the limit that the timer stands for."""
        self._missed = ""
        """Of the last limit that was over when something came: perhaps the timer had run out for it already."""
        self._count = 0
        """Messages since the last flush."""
        self._ended = False
        self._crash: Exception | None = None
        self.error: ArkError | None = None
        """What `fail` was given first."""

    async def run(self, call: Callable[[], Awaitable[None]]) -> dict[str, Any]:
        """Make the call, which feeds this sink, and return what it came to.

        Raises:
            ArkError: it failed, at whatever token; `DeadlineExceeded` with the limit's own code.
        """
        self._wait_from(self._record.started)
        with self._timer:
            await call()
        if self._crash is not None:
            raise self._crash
        if self.error is not None:
            raise self.error
        if not self._ended:
            over = trio.current_time() >= self._timer.deadline
            raise too_slow(self._code if over else self._missed)
        if not self._patience.begun:
            raise BadBackend("The engine ended the answer before it began.")
        self._fold.feed(self._decoder.end())
        return self._fold.result()

    def feed(self, message: M, size: int = 0) -> bool:  # noqa: ARG002 (what it comes to is kept anyway)
        """Take one message."""
        if self._ended or self._crash is not None:
            return True
        try:
            step = self._decoder.feed(message)
            if step.usage is not None:
                self._record.usage = step.usage
            self._fold.feed(step)
        except Exception as error:  # noqa: BLE001 (raised again by `run`)
            self._crash = error
            self._timer.cancel()
        self._count += 1
        return True

    def flush(self) -> None:
        """Note that messages have come, and wait for the next."""
        if not self._count:
            return
        now = trio.current_time()
        if now >= self._timer.deadline:
            self._missed = self._code
        self._record.arrive(self._count, now, now)
        self._count = 0
        self._patience.begun = True
        self._wait_from(now)

    async def room(self) -> None:
        """There always is. Trio-flavoured."""
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """The call ended well."""
        self._ended = True

    def fail(self, error: ArkError) -> None:
        """The call ended badly, or is to end."""
        if not self._ended and self._crash is None:
            self._ended = True
            self.error = error
            self._timer.cancel()

    def _wait_from(self, since: float) -> None:
        self._timer.deadline, self._code = self._patience.deadline(since)
