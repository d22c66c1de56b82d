"""One gRPC call to an engine, owned by the Trio task that makes it.

grpclib and h2 keep the connection and read its frames; a call is a stream among grpclib's. grpclib's own calls are asyncio tasks,
woken for each thing that comes, at 40 µs a time. This one is woken for a head that is not plainly good, a full sink, and the end.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, cast

import structlog
import trio
from grpclib.client import _H2_TO_GRPC_STATUS_MAP
from grpclib.const import Status
from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import decode_grpc_message, decode_metadata, encode_metadata
from h2.errors import ErrorCodes

from ark_trio.bell import Bell
from ark_trio.rpc.channel import LimitedChannel
from ark_trio.rpc.connection import ClientProtocol
from ark_trio.rpc.head import spell_head
from ark_trio.rpc.inlet import Inlet
from ark_trio.rpc.mailbox import Sink
from ark_trio.rpc.status import error_from_status

log = structlog.get_logger()

M = TypeVar("M")
Metadata = Sequence[tuple[str, str]]
Headers = list[tuple[str, str]]
_GRPC = (GRPC_CONTENT_TYPE, f"{GRPC_CONTENT_TYPE}+proto")


class Letter:
    """A request on its way. Whoever sends it takes it out: an answer may last for minutes, and a prompt may be long."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self) -> bytes:
        """Return it, behind gRPC's prefix; once."""
        data, self._data = self._data, b""
        return b"\0" + len(data).to_bytes(4, "big") + data


class Call(Generic[M]):
    """A stream, as grpclib's connection knows it, and what its owner does with it."""

    __slots__ = (
        "_broken",
        "_channel",
        "_good",
        "_h2",
        "_protocol",
        "_room_scope",
        "_sink",
        "_stirred",
        "buffer",
        "data_received",
        "headers",
        "headers_received",
        "id",
        "trailers",
        "trailers_received",
        "window_updated",
    )

    def __init__(
        self,
        channel: LimitedChannel,
        protocol: ClientProtocol,
        sink: Sink[M],
        parse: Callable[[bytes], M],
    ) -> None:
        self._channel = channel
        self._protocol = protocol
        self._sink = sink
        self._h2 = protocol.h2
        self._stirred = Bell()
        self._good = False
        """The answer's head is, and messages go to the sink."""
        self._broken: StreamTerminatedError | None = None
        self._room_scope: trio.CancelScope | None = None
        self.id: int = self._h2.get_next_available_stream_id()
        self.headers: Headers | None = None
        self.trailers: Headers | None = None
        self.data_received = 0
        self.headers_received = self.trailers_received = self.window_updated = self
        self.buffer = Inlet(
            sink,
            parse,
            partial(protocol.settle, self.id),
            self.set,
            limit_bytes=channel.options.max_message_bytes,
            settle_at_bytes=channel.options.stream_window_bytes // 4,
        )

    # The connection's side, in grpclib's words.

    def set(self) -> None:
        """Something has come. A good head is seen to here, so that what follows it in the same read does not wait for the owner."""
        if not self._good and self.headers is not None and _is_good(dict(self.headers)):
            self._begin()
        else:
            self._stirred.ring()

    def __ended__(self) -> None:
        self.buffer.eof()

    def __terminated__(self, reason: str) -> None:
        if self.buffer.ended and self.trailers is not None:
            return  # all of it is here; only its reader is slow
        self._broken = StreamTerminatedError(reason)
        self._stirred.ring()
        if self._room_scope is not None:
            self._room_scope.cancel()

    # The owner's side.

    async def run(self, route: str, letter: Letter, metadata: Metadata) -> None:
        """Make the call, feeding the sink, until the engine has ended it well. Leaves nothing of it on the connection.

        Raises:
            ArkError: the engine ended it otherwise.
            Exception: as `Inlet.finished`; `StreamTerminatedError` for a stream or connection that broke, and as h2.
        """
        self._h2.open_stream(self.id, self._head(route, metadata))
        self._protocol.hold(self.id, cast(Any, self))
        self._protocol.connection.headers_send_process()
        try:
            await self._send(letter.take())
            await self._receive()
        except StreamTerminatedError:
            self._raise_what_was_said()
            raise
        finally:
            self._give_up()
            self._protocol.release(self.id)

    def _head(self, route: str, metadata: Metadata) -> bytes:
        channel = self._channel
        return spell_head(channel._scheme, channel._authority, route, encode_metadata(metadata))

    async def _send(self, data: bytes) -> None:
        """Send the request, as the engine's windows and the socket allow; head and body in one write if they do."""
        connection, at = self._protocol.connection, 0
        while not self.buffer.ended:
            window = self._h2.local_flow_control_window(self.id)
            size = min(window, self._h2.max_outbound_frame_size, len(data) - at)
            if size <= 0 or not connection.write_ready.is_set():
                connection.flush()
                await self._stir()
                continue
            at += size
            self._h2.send_piece(self.id, data[at - size : at], last=at == len(data))
            connection.flush()
            connection.data_send_process()
            if at == len(data):
                return

    async def _receive(self) -> None:
        while self.headers is None:
            await self._stir()
        if not self._good:
            if self._check_head(dict(self.headers)):
                return
            self._begin()
        while not self.buffer.finished():
            if self.buffer.full:
                await self._room()
                self.buffer.resume()
            else:
                await self._stir()
        while self.trailers is None:
            await self._stir()
        _check_status(self.trailers)

    def _begin(self) -> None:
        self._good = True
        self.buffer.resume()

    def _check_head(self, headers: Mapping[str, str]) -> bool:
        """Look at the answer's head; True: it is all of the answer."""
        _check_http(headers)
        if "grpc-status" in headers:
            _check_status(cast(Headers, self.headers))
        return "grpc-status" in headers

    async def _stir(self) -> None:
        """Wait until something has come."""
        if self._broken is None:
            await self._stirred.heard()
        if self._broken is not None:
            raise self._broken

    async def _room(self) -> None:
        """Wait until the sink has room, or the stream is broken."""
        with trio.CancelScope() as self._room_scope:
            if self._broken is None:
                await self._sink.room()
        self._room_scope = None
        if self._broken is not None:
            raise self._broken

    def _raise_what_was_said(self) -> None:
        """Raise what the engine said before the stream broke, if that is an error."""
        if self.headers is not None:
            self._check_head(dict(self.headers))
        if self.trailers is not None:
            _check_status(self.trailers)

    def _give_up(self) -> None:
        """Tell the engine at once that the request was given up, if it has not ended: RST_STREAM with code CANCEL."""
        stream = self._h2.streams.get(self.id)
        if stream is not None and not stream.closed and not self._protocol.connection.is_closing():
            self.reset(ErrorCodes.CANCEL)

    def reset(self, code: ErrorCodes) -> None:
        """Reset the stream without waiting."""
        self._h2.reset_stream(self.id, code)
        self._protocol.connection.flush()


def _is_good(head: Mapping[str, str]) -> bool:
    """Whether an answer begins as answers do. What is not so is looked at by `_check_head`, which says why."""
    good = head.get(":status") == "200" and head.get("content-type") in _GRPC
    return good and "grpc-status" not in head


def _check_http(headers: Mapping[str, str]) -> None:
    status, kind = headers.get(":status"), headers.get("content-type", "")
    if status != "200":
        known = _H2_TO_GRPC_STATUS_MAP.get(str(status), Status.UNKNOWN)
        raise GRPCError(known, f"Received :status = {status!r}")
    if kind not in _GRPC:
        raise GRPCError(Status.UNKNOWN, f"Invalid content-type: {kind!r}")


def _check_status(fields: Headers) -> None:
    """Raise our error for a status that is not OK."""
    found = dict(fields)
    word = found.get("grpc-status", "")
    try:
        status = Status(int(word))
    except ValueError as error:
        raise GRPCError(Status.UNKNOWN, f"Invalid grpc-status: {word!r}") from error
    if status is not Status.OK:
        message = decode_grpc_message(found.get("grpc-message", "")) or None
        log.info("engine_call_failed", status=status.name, reason=message)
        raise error_from_status(status, message, cast(Any, decode_metadata(fields)))
