"""What an engine says, step by step, under the limits in time."""

import math
from typing import Generic, Protocol, TypeVar

import trio

from ark_trio.config import Limits
from ark_trio.errors import ArkError, BadBackend
from ark_trio.protocol.step import Step
from ark_trio.relay.patience import Patience, too_slow
from ark_trio.relay.record import Record
from ark_trio.rpc.mailbox import Mailbox, Tap

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)


class Decoder(Protocol[M_contra]):
    """Turns what arrives into steps."""

    def feed(self, message: M_contra) -> Step:
        """Return what a message adds."""

    def end(self) -> Step:
        """Return what was held back until it was known that no more comes."""


class StreamEncoder(Protocol):
    """Spells a streamed answer, one a family of APIs. Every method returns bytes to send, perhaps none."""

    def feed(self, step: Step) -> bytes:
        """Return the events of one step."""

    def end(self) -> bytes:
        """Return what follows the last step."""

    def fail(self, error: ArkError) -> bytes:
        """Return the end of a stream that failed after its first byte."""


class Steps(Generic[M]):
    """What the engine says, step by step, under the limits in time."""

    __slots__ = ("_decoder", "_mailbox", "_patience", "_record", "_waiting_since")

    def __init__(
        self, mailbox: Mailbox[M], decoder: Decoder[M], limits: Limits, record: Record
    ) -> None:
        self._mailbox = mailbox
        self._decoder = decoder
        self._patience = Patience(limits, record)
        self._record = record
        self._waiting_since: float | None = record.started
        """None: the last batch has been taken and nobody waits; what the client's pace costs is not the engine's fault."""

    @property
    def begun(self) -> bool:
        """The engine has said something."""
        return self._patience.begun

    async def take(self, patience_s: float = math.inf) -> list[Step] | None:
        """Return all steps that wait, at least one; `[]` at the end; None when `patience_s` passed in silence.

        Raises:
            ArkError: the call failed; `DeadlineExceeded` with the limit's own code.
        """
        messages = await self.take_messages(patience_s)
        return None if messages is None else [self.read(message) for message in messages]

    async def take_messages(self, patience_s: float = math.inf) -> list[M] | None:
        """Return all messages that wait, for the caller to `read`; else as `take`."""
        now = trio.current_time()
        if self._waiting_since is None:
            self._waiting_since = now
        deadline, code = self._patience.deadline(self._waiting_since)
        with trio.CancelScope(deadline=min(deadline, now + patience_s)):
            return await self._take()
        if trio.current_time() >= deadline:
            raise too_slow(code)
        return None

    async def _take(self) -> list[M]:
        """Return all messages that wait, or `[]` at the end; the caller bounds the time."""
        messages = await self._mailbox.take()
        self._waiting_since = None
        if messages:
            self._patience.begun = True
            self._record.arrive(len(messages), self._mailbox.arrived, trio.current_time())
        elif not self.begun:
            raise BadBackend("The engine ended the answer before it began.")
        return messages

    async def pass_to(self, tap: Tap[M], patience_s: float) -> bool:
        """Let messages through `tap`, which uses `read` and `hear`, until the caller is wanted: it refuses more, or they end.

        False: nothing has come for `patience_s`.

        Raises:
            DeadlineExceeded: as `take`.
        """
        quiet_since = trio.current_time()
        heard = self._waiting_since or quiet_since
        self._waiting_since = heard
        with self._mailbox.tapped(tap):
            while True:
                deadline, code = self._patience.deadline(heard)
                quiet_until = max(quiet_since, heard) + patience_s
                with trio.CancelScope(deadline=min(deadline, quiet_until)):
                    await self._mailbox.stirred()
                    self._waiting_since = None
                    return True
                # What came meanwhile has moved both limits; no timer was set anew for it.
                heard, now = self._waiting_since or heard, trio.current_time()
                if now >= self._patience.deadline(heard)[0]:
                    raise too_slow(code)
                if now >= max(quiet_since, heard) + patience_s:
                    return False

    def hear(self, count: int) -> None:
        """Note that messages have come."""
        now = self._waiting_since = trio.current_time()
        self._record.arrive(count, now, now)

    def read(self, message: M) -> Step:
        """Return what a message adds."""
        step = self._decoder.feed(message)
        if step.usage is not None:
            self._record.usage = step.usage
        return step

    def flush(self) -> Step:
        """Return what the decoder still held when the stream ended."""
        return self._decoder.end()
