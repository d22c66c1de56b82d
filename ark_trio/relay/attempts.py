"""One request, asked of one decoder after another until one of them has begun to answer.

Only what nobody has seen is tried again: no byte of the decoder's answer has come, none of ours has left. A client's own
faults are the same on any decoder, and a budget keeps a fleet that is failing from being asked ever more.
"""

from functools import partial

import structlog
import trio
from attrs import define, field

from ark_trio.errors import (
    ArkError,
    BadBackend,
    InternalError,
    Overloaded,
    ShuttingDown,
    Unavailable,
    UnknownModel,
    Unreachable,
)
from ark_trio.fleet.budget import RetryBudget
from ark_trio.fleet.decoder import Decoder, Lease
from ark_trio.fleet.fleet import Fleet
from ark_trio.ids import new_id
from ark_trio.protocol.ark_message import Message
from ark_trio.relay.ask import Ask
from ark_trio.rpc.call import Letter
from ark_trio.rpc.channel import UNREACHABLE
from ark_trio.rpc.mailbox import FailingSink, Sink
from ark_wire import ark_pb2

log = structlog.get_logger()

_ELSEWHERE = (Unavailable, BadBackend, InternalError, Overloaded, UnknownModel)
"""What another decoder may do better. That a model is unknown is the decoder's word against its own: it was asked for what it
says that it serves."""


class Attempt:
    """The sink of one call. It keeps a failure before the decoder's first word to itself, and then steps aside."""

    def __init__(self, sink: Sink[Message], lease: Lease, ask: Ask) -> None:
        self.kept: ArkError | None = None
        self._begun = False
        self._sink = sink
        self._lease = lease
        self._ask = ask

    def feed(self, message: Message, size: int = 0) -> bool:
        """Take the first message; the sink itself takes the others, so that a token costs nothing here."""
        self._begun = True
        self._lease.first_token()
        self._ask.forget()
        sink = self._sink
        self.feed, self.flush, self.room = sink.feed, sink.flush, sink.room  # type: ignore[method-assign]  # meant
        return sink.feed(message, size)

    def flush(self) -> None:
        """Nothing has been fed yet."""

    async def room(self) -> None:
        """Wait until there is room. Trio-flavoured."""
        await self._sink.room()

    def end(self) -> None:
        """The call ended well, if it has begun."""
        if self._begun:
            self._sink.end()
        else:
            self.kept = BadBackend("The engine ended the answer before it began.")

    def fail(self, error: ArkError) -> None:
        """The call ended badly."""
        if self._begun:
            self._sink.fail(error)
        else:
            self.kept = error


@define(kw_only=True, eq=False)
class Attempts:
    """Runs the calls of all requests, each on decoders of the fleet."""

    fleet: Fleet
    most: int = 2
    """Decoders that a request may be tried on after the first."""
    budget: RetryBudget = field(factory=RetryBudget)

    async def run(self, ask: Ask, sink: FailingSink[Message]) -> None:
        """Run one call to its end, on as many decoders as it takes.

        Raises:
            ArkError: no decoder could be asked; what one said is told to `sink`.
        """
        tried: list[Decoder] = []
        decoder: Decoder | None = self.fleet.choose(ask.model, ask.key)
        self.budget.asked(trio.current_time())
        while decoder is not None:
            tried.append(decoder)
            error = await self._try(tried, ask, sink)
            if error is None:
                return
            # With an error the sink has been told to end, by who ends all requests.
            decoder = None if sink.error else self._another(ask, error, tried)
            if decoder is None:
                sink.fail(error)
            else:
                ask.record.retries += 1
                log.info("request_retried", request_id=ask.record.request_id, outcome=error.outcome)

    async def _try(
        self, tried: list[Decoder], ask: Ask, sink: FailingSink[Message]
    ) -> ArkError | None:
        """Run one call, on the last of `tried`. Returns why it failed, if nothing of it has been seen."""
        decoder = tried[-1]
        with decoder.lease(ask.work) as lease:
            attempt = Attempt(sink, lease, ask)
            stay = trio.CancelScope()
            lease.on_away = partial(self._leave, stay, ask, tried)
            # What is found wrong with the answer later is told by the record, when the request ends.
            ask.record.ask(str(decoder.address), lease.judge)
            try:
                with stay:
                    await self._call(ask, lease, attempt)
                if stay.cancelled_caught:
                    attempt.fail(Unreachable(UNREACHABLE))
            finally:
                if error := attempt.kept or sink.error:
                    lease.judge(error)
                    # Not by the record again: it may know another of the request's calls by now.
                    ask.record.judge = None
            return attempt.kept

    async def _call(self, ask: Ask, lease: Lease, attempt: Attempt) -> None:
        if not ask.unary:
            letter = Letter((await self._spell(ask)).SerializeToString())
            await lease.channel.stream_known(letter, attempt, metadata=ask.metadata)
            return
        request = await self._spell(ask)
        try:
            attempt.feed(await lease.channel.call(request, metadata=ask.metadata))
        except ArkError as error:
            attempt.fail(error)
        else:
            attempt.end()

    async def _spell(self, ask: Ask) -> ark_pb2.InferenceRequest:
        spell = partial(ask.encode, req_id=new_id(), model=self.fleet.true_name(ask.model))
        if ask.aside is None:
            return spell()
        # Who is cancelled need not wait for the thread: nobody has anything of it.
        return await trio.to_thread.run_sync(spell, limiter=ask.aside, abandon_on_cancel=True)

    def _leave(self, stay: trio.CancelScope, ask: Ask, tried: list[Decoder]) -> None:
        """Wait no longer for a decoder that looks dead, if there is another; else it may yet turn out to be only busy."""
        if self._may_go_on(ask, tried) and set(self.fleet.serving(ask.model)) - {*tried}:
            stay.cancel()

    def _another(self, ask: Ask, error: ArkError, tried: list[Decoder]) -> Decoder | None:
        """Return whom to ask next, or None when it may not be or there is nobody."""
        if isinstance(error, ShuttingDown) or not isinstance(error, _ELSEWHERE):
            return None
        if not self._may_go_on(ask, tried):
            return None
        other = self.fleet.another(ask.model, ask.key, tried)
        return other if other and self.budget.take(trio.current_time()) else None

    def _may_go_on(self, ask: Ask, tried: list[Decoder]) -> bool:
        """Whether one more may be tried: neither have too many been, nor has the client our first byte."""
        return len(tried) <= self.most and ask.record.status is None
