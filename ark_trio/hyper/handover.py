"""What was read of a client, on its way to the requests: by the lane where it can be, else by hypercorn's protocol.

The lane takes plain requests in the turn in which they were read (`lane.py`). All else is handed over by a task, so that reading goes
on whatever a request is busy with; the protocol and that task are made when they are first needed.
"""

from collections.abc import Callable
from typing import Any

import h11
import structlog
import trio
from hypercorn.events import Closed, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol

from ark_trio.bell import Bell
from ark_trio.config import Limits
from ark_trio.hyper.chores import Chores
from ark_trio.hyper.h1 import CarefulH11Protocol
from ark_trio.hyper.lane import Lane

log = structlog.get_logger()

_PIPELINING_S = 5.0
"""How long more than `max_pipelined_bytes` may wait behind an answer. A client that has its whole answer sends the next request
before we have closed the books of the last."""


class Handover:
    """One connection's."""

    def __init__(
        self,
        lane: Lane,
        make_protocol: Callable[[str], ProtocolWrapper],
        chores: Chores,
        limits: Limits,
    ) -> None:
        self._lane = lane
        self._make_protocol = make_protocol
        self._protocol: ProtocolWrapper | None = None
        self._chores = chores
        self._limits = limits
        self._handing_over = False
        self._unread = bytearray()
        self._more = Bell()
        self._room = Bell()

    @property
    def waiting(self) -> int:
        """Bytes that have not been handed over."""
        return len(self._unread)

    @property
    def request_state(self) -> Any:
        """h11's state of the client's side; DONE while a whole request is being answered. None under HTTP/2."""
        if self._lane.busy:
            return h11.SEND_BODY if self._lane.uploading else h11.DONE
        if self._protocol is None:
            return h11.IDLE
        protocol = self._protocol.protocol
        return protocol.connection.their_state if isinstance(protocol, H11Protocol) else None

    async def begin_http2(self) -> None:
        """Speak HTTP/2 from the beginning."""
        self._protocol = self._make_protocol("h2")
        await self._protocol.initiate()

    async def take(self, data: bytes) -> bool:
        """Take what was read, once there is room for it. False: a client that sends so much behind a request is not to be heard."""
        if not self._unread and self._lane_is_free():
            data = data[self._lane.take(data) :]
        if not data:
            return True
        self._unread += data
        self._more.ring()
        self._handing_over = self._handing_over or self._chores.start(self._hand_over)
        return len(self._unread) <= self._limits.max_pipelined_bytes or await self._taken()

    async def end(self) -> None:
        """Tell the requests that nothing more will come."""
        self._lane.lose()
        if self._protocol is not None:
            await self._protocol.handle(Closed())

    def drop(self) -> None:
        """Forget what has not been handed over."""
        self._unread.clear()
        self._room.ring()

    async def _taken(self) -> bool:
        """Wait until what was read has been handed over."""
        with trio.move_on_after(_PIPELINING_S):
            await self._all_taken()
        if self._unread and self.request_state in (h11.DONE, h11.MUST_CLOSE):
            log.info("pipelining_refused", bytes=len(self._unread))
            return False
        await self._all_taken()  # a body that comes faster than it is used
        return True

    async def _all_taken(self) -> None:
        while self._unread:
            await self._room.heard()

    def _lane_is_free(self) -> bool:
        """Whether what comes next may be the lane's: the protocol, if there is one, is between two requests."""
        if self._lane.busy or self._lane.over or self._protocol is None:
            return True
        protocol = self._protocol.protocol
        if not isinstance(protocol, CarefulH11Protocol) or not protocol.between_requests:
            return False
        served = max(self._lane.served, protocol.keep_alive_requests)
        self._lane.served = protocol.keep_alive_requests = served
        return True

    async def _hand_over(self) -> None:
        """Hand over what waits, for as long as the connection lives."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self._unread:
                await self._more.heard()
            await self._hand_over_once()

    async def _hand_over_once(self) -> None:
        # A function of its own: a local of the loop would keep what was read, a prompt, until the next read.
        if self._lane_is_free():
            if count := self._lane.take(bytes(self._unread)):
                del self._unread[:count]
                self._room.ring()
                return
            if self._lane.busy:
                await self._lane.stirred()
                return
        data = bytes(self._unread)
        self.drop()
        if self._protocol is None:
            self._protocol = self._make_protocol("http/1.1")
            self._protocol.protocol.keep_alive_requests = self._lane.served
        # After a last request nothing more counts; h11 would end its answer for it.
        if self.request_state is not h11.MUST_CLOSE:
            await self._protocol.handle(RawData(data))
