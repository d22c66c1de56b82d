"""From a call's mailbox to a client's answer: the limits in time, the stream and its non-streaming fold."""

import math
from collections.abc import AsyncIterator
from typing import Any, Generic, Protocol, TypeVar

import structlog
import trio

from ark_trio.config import Limits
from ark_trio.errors import ArkError, BadBackend, DeadlineExceeded, InternalError
from ark_trio.protocol.sse import KEEP_ALIVE
from ark_trio.protocol.step import Step
from ark_trio.relay.record import Record
from ark_trio.rpc.mailbox import Mailbox

log = structlog.get_logger()

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


class Fold(Protocol):
    """Collects an answer in one piece, one a family of APIs."""

    def feed(self, step: Step) -> None:
        """Take one step."""

    def result(self) -> dict[str, Any]:
        """Return the answer."""


class Steps(Generic[M]):
    """What the engine says, step by step, under the limits in time."""

    def __init__(
        self, mailbox: Mailbox[M], decoder: Decoder[M], limits: Limits, record: Record
    ) -> None:
        self._mailbox = mailbox
        self._decoder = decoder
        self._limits = limits
        self._record = record
        self._begun = False
        self._waiting_since: float | None = record.started
        """None: the last batch has been taken and nobody waits; what the client's pace costs is not the engine's fault."""

    async def take(self, patience_s: float = math.inf) -> list[Step] | None:
        """Return all steps that wait, at least one; `[]` at the end; None when `patience_s` passed in silence.

        Raises:
            ArkError: the call failed; `DeadlineExceeded` with the limit's own code.
        """
        now = trio.current_time()
        if self._waiting_since is None:
            self._waiting_since = now
        deadline, code = self._deadline(self._waiting_since)
        with trio.CancelScope(deadline=min(deadline, now + patience_s)):
            messages = await self._mailbox.take()
            return self._decode(messages)
        if trio.current_time() >= deadline:
            raise DeadlineExceeded(_TOO_SLOW[code], code=code)
        return None

    def _decode(self, messages: list[M]) -> list[Step]:
        if not messages:
            if not self._begun:
                raise BadBackend("The engine ended the answer before it began.")
            return []
        self._waiting_since = None
        self._begun = True
        self._record.arrive(len(messages), self._mailbox.arrived)
        steps = [self._decoder.feed(message) for message in messages]
        for step in steps:
            if step.usage is not None:
                self._record.usage = step.usage
        return steps

    def flush(self) -> Step:
        """Return what the decoder still held when the stream ended."""
        return self._decoder.end()

    def _deadline(self, waiting_since: float) -> tuple[float, str]:
        if self._begun:
            next_token = (waiting_since + self._limits.between_tokens_s, "token_timeout")
        else:
            next_token = (waiting_since + self._limits.first_token_s, "first_token_timeout")
        if self._limits.total_s is None:
            return next_token
        return min(next_token, (self._record.started + self._limits.total_s, "total_timeout"))


_TOO_SLOW = {
    "first_token_timeout": "The engine did not begin to answer in time.",
    "token_timeout": "The engine stopped answering.",
    "total_timeout": "The answer took longer than is allowed.",
}


async def stream_answer(  # noqa: ASYNC900 (yields data and holds nothing)
    begin: bytes | None,
    steps: Steps[M],
    answer: StreamEncoder,
    record: Record,
    keep_alive_s: float,
) -> AsyncIterator[bytes]:
    """Yield the answer's SSE bytes, one piece for all that waits, from `begin` on (None: nothing yet).

    The status has been sent, so a failure is told in the stream. Holds nothing: the call lives in the request's nursery.
    """
    try:
        yield KEEP_ALIVE if begin is None else begin
        while (batch := await steps.take(keep_alive_s)) != []:
            yield KEEP_ALIVE if batch is None else b"".join(map(answer.feed, batch))
        last = answer.feed(steps.flush()) + answer.end()
    except ArkError as error:
        record.end_failed(error)
        last = answer.fail(error)
    except Exception:
        log.exception("stream_crashed", request_id=record.request_id)
        crash = InternalError("The gateway failed.")
        record.end(crash.outcome)  # ours, so no decoder is told
        last = answer.fail(crash)
    yield last


async def fold_answer(steps: Steps[M], answer: Fold) -> dict[str, Any]:
    """Return the whole answer as one object.

    Raises:
        ArkError: the call failed, at whatever token.
    """
    while batch := await steps.take():
        for step in batch:
            answer.feed(step)
    answer.feed(steps.flush())
    return answer.result()
