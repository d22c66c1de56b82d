"""One client's connection, in the place of hypercorn's.

hypercorn 0.18 reads in the task that handles what was read, so while an answer runs it neither reads nor notices that the
client has left if bytes of a next request wait; and it writes under a shield without a deadline, so a client that stops
reading can be neither dropped nor drained. Here

- one task reads, all the time. What it reads goes to the requests by `handover.py`;
- a write never holds more than who wrote, and a client that takes nothing is dropped in time (`writer.py`);
- a client that is answered while it still sends is read to its end, or for a moment: closing a socket that holds unread bytes
  resets it, and our answer would be lost;
- nothing that goes wrong in a connection ends more than this connection (pgjones/hypercorn#225, #329).

A client that leaves is so noticed at any time (pgjones/hypercorn#210).
"""

import os
import socket
import struct
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ark_trio.bell import Bell
from ark_trio.errors import ArkError
from ark_trio.hyper import fate, outlet
from ark_trio.hyper.chores import Chores
from ark_trio.hyper.config import HyperConfig
from ark_trio.hyper.descriptors import note_accepted
from ark_trio.hyper.h1 import refusal
from ark_trio.hyper.handover import Handover
from ark_trio.hyper.idle import IdleDeadline
from ark_trio.hyper.inbox import InboxTaskGroup
from ark_trio.hyper.lane import Lane
from ark_trio.hyper.writer import LOST, Writer

log = structlog.get_logger()

_READ_BYTES = 64 << 10
_CLOSE_S = 2.0
_LINGER_S = 1.0
"""How long a client that was answered early may go on sending."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: forget what is unsent, tell the peer by RST."""
Ends = tuple[tuple[str, int] | None, tuple[str, int] | None]
"""Addresses of client and server; None of what has none."""


class Connection:
    """See the module's docstring. Made and awaited as hypercorn's."""

    __slots__ = (
        "_app",
        "_chores",
        "_config",
        "_context",
        "_door",
        "_fate",
        "_handover",
        "_idle",
        "_limits",
        "_lingering",
        "_new",
        "_plain",
        "_read_all",
        "_socket",
        "_state",
        "_writer",
        "stream",
    )

    def __init__(
        self, app: Any, config: HyperConfig, context: Any, state: Any, stream: Any
    ) -> None:
        self.stream = stream
        self._app = app
        self._config = config
        self._context = context
        self._plain = isinstance(stream, trio.SocketStream)
        self._socket = (stream if self._plain else stream.transport_stream).socket
        self._door = config.door
        self._limits = config.limits
        self._fate = fate.Fate()
        self._chores = Chores()
        self._writer = Writer(stream, config.limits, self._chores, self._give_up)
        short = {outlet.KEY: self._writer} if self._plain else {}
        self._state = {**state, fate.KEY: self._fate, **short}
        self._idle = IdleDeadline(context.terminated, config)
        self._handover: Handover
        self._lingering = False
        self._new = True
        """Nothing has been read."""
        self._read_all = Bell()

    def __await__(self) -> Generator[Any, Any, None]:
        """Run it, as hypercorn does."""
        return self.run().__await__()

    async def run(self) -> None:
        """Serve the connection to its end, if there is a place for it."""
        note_accepted()
        error = self._door.enter(self, self._address())
        try:
            if error is not None:
                await self._turn_away(error)
            elif self._plain or await self._shake_hands():
                await self._serve()
        except Exception:
            log.exception("connection_crashed")
        except BaseExceptionGroup as group:
            crashes, others = group.split(Exception)
            if crashes is not None:
                log.exception("connection_crashed", exc_info=crashes)
            if others is not None:
                raise others from group
        finally:
            self._idle.end()
            self._door.leave(self)
            self._writer.lose()
            self._reset()

    def drop(self) -> None:
        """Close at once, to make room for another."""
        self._writer.lose()
        self._socket.close()

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Write a piece of an answer; see `Writer.write`."""
        await self._writer.write(data, last=last)

    def note(self, *, idle: bool) -> None:
        """Note whether a request runs. What has been lost becomes idle no more: the timer would keep it."""
        if self._writer.lost:
            return
        self._door.note(self, idle=idle)
        if idle:
            self._idle.begin()
        else:
            self._idle.end()

    async def close(self) -> None:
        """Close, within a bound: TLS may want to write. The reading task notices, and tells the requests."""
        if self._plain:
            if self._handover.request_state in (h11.SEND_BODY, h11.ERROR):
                await self._linger()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            self._socket.close()
            return
        with trio.move_on_after(_CLOSE_S, shield=True), suppress(*LOST, trio.BusyResourceError):
            await self.stream.aclose()

    async def _shake_hands(self) -> bool:
        """Begin TLS, within the time of a head. A client that is not through at the server's end is not waited for."""
        termination: Any = self._context.terminated
        idle = termination.idle
        if termination.is_set():
            return False
        with trio.move_on_after(self._limits.head_s) as scope, suppress(*LOST):
            idle.add(scope)
            try:
                await self.stream.do_handshake()
                return True
            finally:
                idle.discard(scope)
        return False

    async def _turn_away(self, error: ArkError) -> None:
        """Say why a connection has no place."""
        if not self._plain or not self._door.may_linger:
            return
        self._writer.write_now(refusal(error))
        with self._door.lingering(), trio.move_on_after(_LINGER_S), suppress(*LOST):
            await self.stream.send_eof()
            while await self.stream.receive_some(_READ_BYTES):
                pass

    async def _serve(self) -> None:
        """Read to the end, with every task that the requests need."""
        try:
            ends = self._ends()
        except OSError:  # the client has left already
            return
        async with trio.open_nursery() as nursery:
            self._handover = self._make_handover(nursery, ends)
            if not self._plain and self.stream.selected_alpn_protocol() == "h2":
                await self._handover.begin_http2()
            self._idle.begin()
            try:
                await self._read_data(nursery)
            finally:
                self._chores.stop()
                await self.close()  # noqa: ASYNC102 (what waits in it is bounded, and shielded where it must be)

    def _ends(self) -> Ends:
        family = self._socket.family
        client, server = self._socket.getpeername(), self._socket.getsockname()
        return parse_socket_addr(family, client), parse_socket_addr(family, server)

    def _make_handover(self, nursery: trio.Nursery, ends: Ends) -> Handover:
        alike = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "scheme": "http" if self._plain else "https",
            "root_path": self._config.root_path,
            "client": ends[0],
            "server": ends[1],
            "state": self._state,
        }
        ended = self._context.terminated.is_set
        lane = Lane(self, self._app, self._config, alike, nursery, ended)
        make = partial(self._make_protocol, nursery, ends)
        return Handover(lane, make, self._chores, self._limits)

    def _make_protocol(self, nursery: trio.Nursery, ends: Ends, agreed: str) -> ProtocolWrapper:
        """Make hypercorn's part: HTTP/2, and requests that are not plain."""
        group, state = InboxTaskGroup.of(nursery), ConnectionState(self._state)
        mine = (self._app, self._config, self._context, group, state, not self._plain, *ends)
        return ProtocolWrapper(*mine, self._do, agreed)

    async def _do(self, event: Event) -> None:
        """Do what hypercorn's part asks for."""
        if isinstance(event, RawData):
            await self.write(event.data)
        elif isinstance(event, Closed):
            await self.close()
        elif isinstance(event, Updated):
            self.note(idle=event.idle)

    async def _read_data(self, nursery: trio.Nursery) -> None:
        """Read until the client has closed its side or is lost, whatever the requests are busy with."""
        self._chores.begin(nursery)
        self._writer.empty_soon()
        try:
            if idle_too_long := await self._read_while_used():
                # HTTP/2 says goodbye, which is written by a task that ends with the reading.
                with trio.move_on_after(_CLOSE_S):
                    await self._handover.end()
        finally:
            self._chores.stop()
        self._read_all.ring()
        if idle_too_long:
            await self.close()
        self._writer.lose()
        await self._chores.cancel()  # first: what they begin in their last turn is to be told too
        await self._handover.end()

    async def _read_while_used(self) -> bool:
        """Read until nothing more is to be read; True: because the connection has been idle for too long."""
        while True:  # noqa: ASYNC913 (it reads)
            with self._idle.scope as scope, suppress(*LOST):
                while await self._read_some():
                    pass
            if not scope.cancelled_caught:
                return False
            if self._idle.over and not self._handover.waiting:
                return True
            self._idle.renew()  # a request came just in time

    async def _read_some(self) -> bool:
        """Read once; False: no more will come, or be heard."""
        # A function of its own: a local of the loop would keep what was read, a prompt, until the next read.
        data = await self._read()
        if not data or self._lingering or await self._handover.take(data):
            return bool(data)
        self._reset()
        return False

    async def _read(self) -> bytes:
        """Read once; nothing: no more will come."""
        if not self._plain:
            return bytes(await self.stream.receive_some(_READ_BYTES))
        # Trio's own `recv` first tries to, in vain but for the first time, and takes four calls more.
        while self._socket.fileno() != -1:  # else another task has closed it
            if self._new:  # who has come has often sent already
                self._new = False
            else:
                await trio.lowlevel.wait_readable(self._socket.fileno())
            # Asked anew: it may just have been closed, and its number be another connection's.
            with suppress(BlockingIOError):
                return os.read(self._socket.fileno(), _READ_BYTES)
        return b""

    async def _linger(self) -> None:
        """Say that we have answered, and take what the client sends until it has seen that."""
        self._lingering = True
        self._handover.drop()
        with trio.move_on_after(_LINGER_S), suppress(*LOST):
            # Several tasks may close; send_eof is for one at a time.
            self._socket.shutdown(socket.SHUT_WR)
            while self._chores.going:
                await self._read_all.heard()

    def _address(self) -> str | None:
        """Where the client is; None on a Unix socket, or when it has left already."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return None
        return name[0] if isinstance(name, tuple) else None

    def _give_up(self, unsent_bytes: int) -> None:
        """Lose a client that takes nothing."""
        log.info("client_stalled", unsent_bytes=unsent_bytes)
        self._fate.outcome = fate.CLIENT_STALLED
        self._writer.lose()
        self._reset()

    def _reset(self) -> None:
        """Close the socket at once, without waiting for the client to take what the kernel holds."""
        if self._socket.fileno() != -1:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._socket.close()
