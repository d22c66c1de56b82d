"""From a call's mailbox to a client's answer, streamed."""

from collections.abc import AsyncIterator
from typing import TypeVar

import structlog

from ark_trio.errors import ArkError, InternalError
from ark_trio.protocol.sse import KEEP_ALIVE
from ark_trio.relay.push import Outlet, Push
from ark_trio.relay.record import Record
from ark_trio.relay.spelling import Spelling
from ark_trio.relay.steps import Steps, StreamEncoder

log = structlog.get_logger()

M = TypeVar("M")


class LastPiece(bytes):
    """The end of a stream: nothing follows it."""


async def stream_answer(  # noqa: ASYNC900 (yields data and holds nothing)
    begin: bytes | None,
    steps: Steps[M],
    answer: StreamEncoder,
    record: Record,
    keep_alive_s: float,
    outlet: Outlet | None = None,
) -> AsyncIterator[bytes]:
    """Yield the answer's SSE bytes, one piece for all that waits, from `begin` on (None: nothing yet).

    Where there is an `outlet`, nearly all goes out through it instead.
    The status has been sent, so a failure is told in the stream. Holds nothing: the call lives in the request's nursery.
    """
    spelling = Spelling(steps, answer)
    push = Push(steps, spelling, outlet) if outlet is not None else None
    try:
        # Never nothing: the answer's head goes out with it, and what is pushed would go ahead of it.
        yield begin or KEEP_ALIVE
        del begin
        while True:
            if push is not None and steps.begun and not await push.run(keep_alive_s):
                yield KEEP_ALIVE
                continue
            messages = await spelling.take(keep_alive_s)
            if messages == []:
                break
            yield KEEP_ALIVE if messages is None else spelling.spell(messages)
        last = answer.feed(steps.flush()) + answer.end()
    except ArkError as error:
        record.end_failed(error)
        last = answer.fail(error)
    except Exception:
        log.exception("stream_crashed", request_id=record.request_id)
        crash = InternalError("The gateway failed.")
        record.end(crash.outcome)  # ours, so no decoder is told
        last = answer.fail(crash)
    yield LastPiece(last)
