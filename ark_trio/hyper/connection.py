"""One client's connection: hypercorn's, except for how it reads and writes.

hypercorn 0.18 reads in the task that handles what was read, so while an answer runs it neither reads nor notices that the
client has left if bytes of a next request wait; and it writes under a shield without a deadline, so a client that stops
reading can be neither dropped nor drained. Here

- one task reads, all the time. Plain requests it hands over itself (`lane.py`); for all else there is hypercorn's protocol, made
  when it is first needed, and a task that hands over to it;
- a write goes to the socket at once if it can, else into a buffer that a third task empties. Who wrote waits for that and
  may be cancelled meanwhile: nothing is ever left half written, which would break an HTTP/2 connection for its other streams;
- a client that takes no byte for `stalled_write_s` is dropped;
- a client that is answered while it still sends is read to its end, or for a moment: closing a socket that holds unread bytes
  resets it, and our answer would be lost;
- nothing that goes wrong in a connection ends more than this connection (pgjones/hypercorn#225, #329).

A client that leaves is so noticed at any time (pgjones/hypercorn#210).
"""

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h11
import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ark_trio.bell import Bell
from ark_trio.errors import ArkError
from ark_trio.hyper import fate, outlet
from ark_trio.hyper.config import HyperConfig
from ark_trio.hyper.descriptors import note_accepted
from ark_trio.hyper.h1 import CarefulH11Protocol, refusal
from ark_trio.hyper.idle import IdleDeadline
from ark_trio.hyper.inbox import InboxTaskGroup
from ark_trio.hyper.lane import Lane

log = structlog.get_logger()

_READ_BYTES = 64 << 10
_WRITE_BYTES = 256 << 10
"""The most handed over at a time: a slow client's progress must be seen within the deadline."""
_WRITE_TLS_BYTES = 16 << 10
_CLOSE_S = 2.0
_LINGER_S = 1.0
"""How long a client that was answered early may go on sending."""
_PIPELINING_S = 5.0
"""How long more than `max_pipelined_bytes` may wait behind an answer. A client that has its whole answer sends the next request
before we have closed the books of the last."""
_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: forget what is unsent, tell the peer by RST."""


class Connection(TCPServer):
    """hypercorn's connection; see the module's docstring."""

    def __init__(
        self, app: Any, config: HyperConfig, context: Any, state: Any, stream: Any
    ) -> None:
        self._fate = fate.Fate()
        self._door = config.door
        self._limits = config.limits
        self._plain = isinstance(stream, trio.SocketStream)
        ours = {fate.KEY: self._fate, **({outlet.KEY: self} if self._plain else {})}
        super().__init__(app, config, context, {**state, **ours}, stream)
        del self.send_lock  # hypercorn's, for what we do otherwise
        self.idle_task: Any = IdleDeadline(context.terminated, config)
        self._unsent = bytearray()
        self._written = 0
        """Bytes that left the buffer since the beginning."""
        self._queued = 0
        """Bytes that entered it."""
        self._emptying = False
        self._handing_over = False
        self._nursery: trio.Nursery
        self._reading = False
        self._chores: list[trio.CancelScope] = []
        """Of the tasks that end with the reading."""
        self._lane: Lane
        self._more_to_write = Bell()
        self._progress = Bell()
        self._lost = False
        self._unread = bytearray()
        self._more_to_read = Bell()
        self._room = Bell()
        self._lingering = False
        self._read_all = Bell()

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
            _, others = group.split(Exception)
            if others is not None:
                raise others from group
        finally:
            self.idle_task.end()
            self._door.leave(self)
            self._lose()
            self._reset()

    async def _serve(self) -> None:
        """Read to the end, with every task that the requests need."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._begin()
                self.idle_task.begin()
                await self._read_data()
        except OSError:
            pass
        finally:
            await self._close()  # noqa: ASYNC102 (it shields itself, within a bound)

    async def _begin(self) -> None:
        """Have a lane, and where TLS has agreed on HTTP/2 a protocol, which speaks first."""
        sock = self._socket
        self._client = parse_socket_addr(sock.family, sock.getpeername())
        self._server = parse_socket_addr(sock.family, sock.getsockname())
        alike = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "scheme": "http" if self._plain else "https",
            "root_path": self.config.root_path,
            "client": self._client,
            "server": self._server,
            "state": self.state,
        }
        ended = self.context.terminated.is_set
        self._lane = Lane(self, self.app, self.config, alike, self._nursery, ended)
        if not self._plain and self.stream.selected_alpn_protocol() == "h2":
            await self._make_protocol("h2").initiate()

    def _make_protocol(self, agreed: str = "http/1.1") -> ProtocolWrapper:
        """Make what reads requests that are not plain."""
        self.protocol = ProtocolWrapper(
            self.app,
            self.config,
            self.context,
            InboxTaskGroup.of(self._nursery),
            ConnectionState(self.state),
            not self._plain,
            self._client,
            self._server,
            self.protocol_send,
            agreed,
        )
        return self.protocol

    def drop(self) -> None:
        """Close at once, to make room for another."""
        self._lose()
        self._socket.close()

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._close()  # the reading task notices, and tells the protocol
        elif isinstance(event, Updated):
            self.note(idle=event.idle)

    def note(self, *, idle: bool) -> None:
        """Note whether a request runs. What has been lost becomes idle no more: the timer would keep it."""
        if self._lost:
            return
        self._door.note(self, idle=idle)
        if idle:
            self.idle_task.begin()
        else:
            self.idle_task.end()

    async def _shake_hands(self) -> bool:
        """Begin TLS, within the time of a head. A client that is not through at the server's end is not waited for."""
        termination: Any = self.context.terminated
        idle = termination.idle
        if termination.is_set():
            return False
        with trio.move_on_after(self._limits.head_s) as scope, suppress(*_LOST):
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
        self._write_now(refusal(error))
        with self._door.lingering(), trio.move_on_after(_LINGER_S), suppress(*_LOST):
            await self.stream.send_eof()
            while await self.stream.receive_some(_READ_BYTES):
                pass

    async def _write(self, data: bytes) -> None:
        """Return once `data` is in the kernel's hands, or the connection is lost. Always a checkpoint."""
        # What HTTP/2 says before it has read anything has nobody yet who empties the buffer; under TLS it can't go out by itself.
        if self._write_or_keep(data) or not self._reading:
            await trio.lowlevel.checkpoint()
        else:
            await self.drained()

    def push(self, data: bytes) -> bool:
        """Write a chunk of the body; see `Outlet`. h11 is passed over: between two chunks it knows nothing that it must."""
        return self._write_or_keep(b"%x\r\n%b\r\n" % (len(data), data))

    async def drained(self) -> None:
        """Wait until all that entered the buffer so far has left it, or is lost. Always a checkpoint."""
        mark = self._queued
        while self._written < mark and not self._lost:
            await self._progress.heard()
        await trio.lowlevel.checkpoint()

    def _write_or_keep(self, data: bytes) -> bool:
        """Write as much as the socket takes, if nothing waits, and put the rest into the buffer. False: there was a rest."""
        if data and not self._lost and not self._unsent:
            data = data[self._write_now(data) :]
        if self._lost or not data:
            return True
        self._unsent += data
        self._queued += len(data)
        self._empty_soon()
        return False

    def _empty_soon(self) -> None:
        """Have what waits written. Most clients keep up, so the task is there only once it was needed."""
        self._more_to_write.ring()
        if not self._emptying and self._reading:
            self._emptying = True
            self._nursery.start_soon(self._as_chore, self._empty_buffer)

    def _write_now(self, data: bytes) -> int:
        """Write what the socket takes without waiting; no task switch where the client keeps up."""
        if not self._plain:
            return 0
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            self._lose()
            return 0

    async def _empty_buffer(self) -> None:
        """Write what waits, for as long as the connection lives."""
        while not self._lost:
            if not self._unsent:
                await self._more_to_write.heard()
            with trio.move_on_after(self._limits.stalled_write_s):
                await self._write_some()
                continue
            log.info("client_stalled", unsent_bytes=len(self._unsent))
            self._fate.outcome = fate.CLIENT_STALLED
            self._lose()
            self._reset()

    async def _write_some(self) -> None:
        try:
            if self._plain:
                count = await self.stream.socket.send(self._unsent[:_WRITE_BYTES])
            else:
                chunk = bytes(self._unsent[:_WRITE_TLS_BYTES])
                await self.stream.send_all(chunk)
                count = len(chunk)
        except _LOST:
            self._lose()
            return
        del self._unsent[:count]
        self._written += count
        self._wake_writers()

    async def _read_data(self) -> None:
        """Read until the client has closed its side or is lost, whatever the requests are busy with."""
        self._reading = True
        if self._unsent:
            self._empty_soon()
        try:
            if idle_too_long := await self._read_while_used():
                # HTTP/2 says goodbye, which is written by a task that ends with the reading.
                with trio.move_on_after(_CLOSE_S):
                    await self._tell_end()
        finally:
            self._reading = False
        self._read_all.ring()
        if idle_too_long:
            await self._close()
        self._lose()
        for scope in self._chores:
            scope.cancel()
        await self._tell_end()

    async def _tell_end(self) -> None:
        """Tell the requests that nothing more will come."""
        self._lane.lose()
        if hasattr(self, "protocol"):
            await self.protocol.handle(Closed())

    async def _as_chore(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what ends with the reading."""
        with trio.CancelScope() as scope:
            self._chores.append(scope)
            if self._reading:
                await work()

    async def _read_while_used(self) -> bool:
        """Read until nothing more is to be read; True: because the connection has been idle for too long."""
        while True:  # noqa: ASYNC913 (it reads)
            with self.idle_task.scope as scope, suppress(*_LOST):
                while await self._read_some():
                    pass
            if not scope.cancelled_caught:
                return False
            if self.idle_task.idle and not self._unread:
                return True
            self.idle_task.renew()  # a request came just in time

    async def _read_some(self) -> bool:
        """Read once; False when nothing more is to be read."""
        data = bytes(await self.stream.receive_some(_READ_BYTES))
        if not data or self._lingering:
            return bool(data)
        if not self._unread and self._lane_is_free():
            data = data[self._lane.take(data) :]
        if not data:
            return True
        self._unread += data
        self._hand_over_soon()
        if len(self._unread) > self._limits.max_pipelined_bytes:
            with trio.move_on_after(_PIPELINING_S):
                await self._taken()
            if self._unread and self._request_state() in (h11.DONE, h11.MUST_CLOSE):
                log.info("pipelining_refused", bytes=len(self._unread))
                self._reset()
                return False
            await self._taken()  # a body that comes faster than it is used
        return True

    async def _taken(self) -> None:
        """Wait until what was read has been handed over."""
        while self._unread:
            await self._room.heard()

    def _request_state(self) -> Any:
        """h11's state of the client's side; DONE while a whole request is being answered. None under HTTP/2."""
        if self._lane.busy:
            return h11.SEND_BODY if self._lane.uploading else h11.DONE
        if not hasattr(self, "protocol"):
            return h11.IDLE
        protocol = self.protocol.protocol
        return protocol.connection.their_state if isinstance(protocol, H11Protocol) else None

    def _lane_is_free(self) -> bool:
        """Whether what comes next may be the lane's: the protocol, if there is one, is between two requests."""
        if self._lane.busy or not hasattr(self, "protocol"):
            return True
        protocol = self.protocol.protocol
        if not isinstance(protocol, CarefulH11Protocol) or not protocol.between_requests:
            return False
        self._lane.served = protocol.keep_alive_requests = max(
            self._lane.served, protocol.keep_alive_requests
        )
        return True

    def _hand_over_soon(self) -> None:
        """Have what was read handed over by a task: the lane does not take it, or not now."""
        self._more_to_read.ring()
        if not self._handing_over:
            self._handing_over = True
            self._nursery.start_soon(self._as_chore, self._hand_over)

    async def _hand_over(self) -> None:
        """Hand over what was read."""
        while True:
            await trio.lowlevel.checkpoint()
            if not self._unread:
                await self._more_to_read.heard()
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
        self._unread.clear()
        self._room.ring()
        if not hasattr(self, "protocol"):
            self._make_protocol().protocol.keep_alive_requests = self._lane.served
        # After a last request nothing more counts; h11 would end its answer for it.
        if self._request_state() is not h11.MUST_CLOSE:
            await self.protocol.handle(RawData(data))

    async def _close(self) -> None:
        """Close, within a bound: TLS may want to write."""
        if self._plain and self._request_state() in (h11.SEND_BODY, h11.ERROR):
            await self._linger()
        with trio.move_on_after(_CLOSE_S, shield=True):
            await super()._close()

    async def _linger(self) -> None:
        """Say that we have answered, and take what the client sends until it has seen that."""
        self._lingering = True
        self._unread.clear()
        self._room.ring()
        with trio.move_on_after(_LINGER_S), suppress(*_LOST):
            # Several tasks may close; send_eof is for one at a time.
            self._socket.shutdown(socket.SHUT_WR)
            while self._reading:
                await self._read_all.heard()

    def _address(self) -> str | None:
        """Where the client is; None on a Unix socket, or when it has left already."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return None
        return name[0] if isinstance(name, tuple) else None

    @property
    def _socket(self) -> Any:
        return (self.stream if self._plain else self.stream.transport_stream).socket

    def _lose(self) -> None:
        """Nothing can be written any more; whoever waits for that goes on."""
        self._lost = True
        self._unsent.clear()
        self._more_to_write.ring()
        self._wake_writers()

    def _wake_writers(self) -> None:
        self._progress.ring()

    def _reset(self) -> None:
        """Close the socket at once, without waiting for the client to take what the kernel holds."""
        if self._socket.fileno() != -1:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._socket.close()
