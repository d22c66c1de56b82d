"""Several workers count as one: the parent keeps the ledger, and each worker asks it through a socket of its own.

A datagram is a call, as a JSON list: `[ticket, name, quota…, tokens]` claims and is answered, `[ticket, used]` settles and is
not. What a worker that has died had claimed is taken as used.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final

import attrs
import orjson
import trio
from attrs import define, field

from ark_trio.access.quota import Ledger, Quota, Rate, Verdict
from ark_trio.access.store import Ticket
from ark_trio.errors import Unavailable

ANSWER_S: Final = 2.0
"""Time that the parent has to answer; it does nothing else that takes any."""
GIVE_BACK_S: Final = 0.1
"""Time to tell the parent that a claim is not wanted any more; else it is told later."""
_MAX_BYTES: Final = 4096
_SETTLING: Final = 2
"""Length of a datagram that settles."""


@define(eq=False)
class Desk:
    """The parent's end: synchronous, as the parent is."""

    ledger: Ledger = field(factory=Ledger)
    clock: Callable[[], float] = time.monotonic

    def answer(self, worker: int, message: bytes) -> bytes | None:
        """Do what a worker asks; return what to say to it, if anything."""
        said = orjson.loads(message)
        ticket = (worker, said[0])
        if len(said) == _SETTLING:
            self.ledger.settle(self.clock(), ticket, said[1])
            return None
        _, name, *quota, tokens = said
        per_minute, tokens_per_minute, at_once = quota
        verdict = self.ledger.claim(
            self.clock(),
            ticket,
            name,
            Quota(
                requests_per_minute=per_minute,
                tokens_per_minute=tokens_per_minute,
                concurrent_requests=at_once,
            ),
            tokens,
        )
        return orjson.dumps([said[0], attrs.asdict(verdict)])

    def forget(self, worker: int) -> None:
        """Settle what a worker leaves behind: what it claimed, it may have used."""
        for ticket in self.ledger.open_tickets():
            if isinstance(ticket, tuple) and ticket[0] == worker:
                self.ledger.settle(self.clock(), ticket, None)


@define(eq=False)
class RemoteStore:
    """A worker's end; see `Store`."""

    _socket: trio.socket.SocketType
    _tickets: "count[int]" = field(factory=count)
    _waiting: dict[Ticket, trio.Event] = field(factory=dict)
    _answers: dict[Ticket, Verdict] = field(factory=dict)
    _sending: trio.Lock = field(factory=trio.Lock)
    _unsettled: list[bytes] = field(factory=list)
    """What the parent could not be told yet: no more than requests have run while it did not listen."""

    async def listen(self) -> None:
        """Take the parent's answers, until it is gone."""
        with suppress(OSError):
            while message := await self._socket.recv(_MAX_BYTES):
                ticket, verdict = orjson.loads(message)
                if ticket in self._waiting:
                    self._answers[ticket] = _verdict(verdict)
                    self._waiting[ticket].set()

    async def claim(self, name: str, quota: Quota, tokens: int) -> tuple[Ticket, Verdict]:
        """See `Store`."""
        ticket, verdict = next(self._tickets), None
        try:
            with trio.move_on_after(ANSWER_S), suppress(OSError):
                verdict = await self._ask(ticket, [ticket, name, *attrs.astuple(quota), tokens])
        finally:
            if verdict is None:  # it may have been taken all the same
                with trio.move_on_after(GIVE_BACK_S, shield=True):
                    await self.settle(ticket, 0)
        if verdict is None:
            raise Unavailable("This request can't be counted now. Try again shortly.")
        return ticket, verdict

    async def _ask(self, ticket: Ticket, call: list[Any]) -> Verdict:
        answered = self._waiting[ticket] = trio.Event()
        try:
            await self._say_what_is_left()
            await self._send(orjson.dumps(call))
            await answered.wait()
            return self._answers[ticket]
        finally:
            self._waiting.pop(ticket, None)
            self._answers.pop(ticket, None)

    async def settle(self, ticket: Ticket, used: int) -> None:
        """See `Store`."""
        self._unsettled.append(orjson.dumps([ticket, used]))
        with suppress(OSError):  # the parent is gone, and with it all that was counted
            await self._say_what_is_left()

    async def _say_what_is_left(self) -> None:
        while self._unsettled:
            message = self._unsettled.pop()
            try:
                await self._send(message)
            except BaseException:
                self._unsettled.append(message)
                raise

    async def _send(self, message: bytes) -> None:
        async with self._sending:  # where the parent is behind, one task at a time may wait for it
            await self._socket.send(message)


def _verdict(values: dict[str, Any]) -> Verdict:
    rates = {name: values[name] and Rate(**values[name]) for name in ("requests", "tokens")}
    return Verdict(**{**values, **rates})
