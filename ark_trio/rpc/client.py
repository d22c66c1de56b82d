"""One decoder or prefiller, called over one persistent gRPC connection.

A call is owned by the Trio task that makes it (`Call`); asyncio is entered only to connect.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
import trio
from attrs import field, frozen
from google.protobuf.message import DecodeError
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from ark_trio.errors import (
    ArkError,
    BackendCancelled,
    BadBackend,
    Unavailable,
    Unreachable,
)
from ark_trio.ids import new_id
from ark_trio.protocol.ark_message import Message
from ark_trio.protocol.ark_reader import MessageReader
from ark_trio.protocol.value import from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.call import Call, Letter, Metadata
from ark_trio.rpc.channel import ChannelOptions, LimitedChannel
from ark_trio.rpc.connection import ClientProtocol
from ark_trio.rpc.mailbox import Kept, Sink
from ark_trio.rpc.status import error_from_status
from ark_wire import ark_pb2
from ark_wire.inference import ControlRequest, ControlType

log = structlog.get_logger()

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
M = TypeVar("M")

_STREAMING_CALL = "/inference.Inference/StreamingCall"
_CALL = "/inference.Inference/Call"
_CONTROL = "/inference.Inference/Control"
_HEALTH = "/grpc.health.v1.Health/Check"
_LOST = "The connection to the engine was lost."
_FOREIGN: Final = (
    GRPCError,
    StreamTerminatedError,
    OSError,
    ProtocolError,
    H2Error,
    DecodeError,
    AssertionError,
)


@frozen(kw_only=True)
class ArkChannel:
    """An open channel. Connects when first called, and again whenever the connection was lost."""

    bridge: Bridge
    options: ChannelOptions
    _grpc: LimitedChannel = field(alias="grpc")
    _reader: MessageReader = field(init=False, factory=MessageReader)

    @property
    def open_streams(self) -> int:
        """HTTP/2 streams that have not been released."""
        return sum(len(protocol.processor.streams) for protocol in self._grpc.connections)

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Connect with `tls` from now on; connections that live go on as they are."""
        self._grpc.renew(tls)

    async def stream(
        self, request: Request, sink: Sink[Response], *, metadata: Metadata = ()
    ) -> None:
        """Run a StreamingCall, feeding `sink`, until the engine ends it. Trio-flavoured.

        Ends by `sink.end()` or `sink.fail(error)`, never by an `ArkError`. Cancelled, it resets the gRPC stream with code
        CANCEL before it returns.
        """
        letter = Letter(request.SerializeToString())
        await self._stream(letter, sink, Response.FromString, metadata)

    async def stream_known(
        self, letter: Letter, sink: Sink[Message], *, metadata: Metadata = ()
    ) -> None:
        """As `stream`, but messages that are known by their shape are not parsed. Trio-flavoured."""
        await self._stream(letter, sink, self._reader.read, metadata)

    async def call(self, request: Request, *, metadata: Metadata = ()) -> Response:
        """Run a unary Call. Trio-flavoured; the caller sets the deadline.

        Raises:
            ArkError: the call failed.
        """
        return await self._make_unary(_CALL, request, Response.FromString, metadata)

    async def control(self, control_type: int) -> dict[str, Any]:
        """Run a Control call and return its outputs as plain values. Trio-flavoured; the caller sets the deadline.

        The answer is read by upb, which says of any bytes whether they are a message.

        Raises:
            ArkError: the call failed; `NotImplementedByEngine` from engines that know no such control.
        """
        request = ControlRequest(req_id=new_id(), control_type=ControlType(control_type))
        response = await self._make_unary(_CONTROL, request, ark_pb2.ControlResponse.FromString)
        return {key: from_value(value) for key, value in response.outputs.items()}

    async def serving(self) -> bool:
        """Ask gRPC's own health service. Trio-flavoured; the caller sets the deadline.

        Raises:
            ArkError: the call failed; `NotImplementedByEngine` from engines without that service.
        """
        request = HealthCheckRequest()
        answer = await self._make_unary(_HEALTH, request, HealthCheckResponse.FromString)
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def _stream(
        self, letter: Letter, sink: Sink[M], parse: Callable[[bytes], M], metadata: Metadata
    ) -> None:
        try:
            await self._make(_STREAMING_CALL, letter, sink, parse, metadata)
        except ArkError as error:
            sink.fail(error)
        else:
            sink.end()

    async def _make_unary(
        self, route: str, request: Any, parse: Callable[[bytes], M], metadata: Metadata = ()
    ) -> M:
        kept = Kept[M]()
        letter = Letter(request.SerializeToString())
        await self._make(route, letter, kept, parse, metadata)
        if not kept.messages:
            raise BadBackend("The engine answered nothing.")
        return kept.messages[0]

    async def _make(
        self,
        route: str,
        letter: Letter,
        sink: Sink[M],
        parse: Callable[[bytes], M],
        metadata: Metadata,
    ) -> None:
        """Make a call on a connection with room, made first if need be."""
        protocol = self._grpc.with_room() or await self._connect()
        try:
            call = Call(self._grpc, protocol, sink, parse)
            await call.run(route, letter, metadata)
        except _FOREIGN as error:
            raise _ours(error) from error

    async def _connect(self) -> ClientProtocol:
        """Return a connection with room. Others may take what is made for us, so it may need several turns."""
        with trio.move_on_after(self.options.connect_s):
            while (protocol := self._grpc.with_room()) is None:
                await self.bridge.run(self._grpc.connected)
            return protocol
        raise self._grpc.too_late()


@asynccontextmanager
async def open_channel(
    bridge: Bridge, host: str, port: int, options: ChannelOptions | None = None
) -> AsyncIterator[ArkChannel]:
    """Open a channel to `host:port`; calls still running when the block ends fail as lost. Trio-flavoured.

    Nothing connects yet: an engine that is away is found out by the first call.
    """
    chosen = options or ChannelOptions()
    grpc = await bridge.run(_make_channel, host, port, chosen)
    try:
        yield ArkChannel(bridge=bridge, options=chosen, grpc=grpc)
    finally:
        grpc.close()


async def _make_channel(host: str, port: int, options: ChannelOptions) -> LimitedChannel:
    """asyncio-flavoured, since grpclib binds the running loop when a channel is made."""
    return LimitedChannel(host, port, options)


def _ours(error: Exception) -> ArkError:
    """Return our error for what grpclib, h2 and sockets raise."""
    match error:
        case GRPCError():
            return error_from_status(error.status, error.message, {})
        case StreamTerminatedError():
            return _terminated(str(error))
        case OSError():
            return Unreachable(_LOST)
    log.warning("engine_broke_protocol", exc_info=error)
    return BadBackend("The engine's answer could not be understood.")


def _terminated(reason: str) -> ArkError:
    """Return our error for a stream that ended without a status; grpclib tells the cause in words only."""
    log.info("engine_stream_terminated", reason=reason)
    if "reset by remote party" in reason:
        code = reason.rpartition(" ")[2]
        if code == str(int(ErrorCodes.REFUSED_STREAM)):  # it has done nothing of it (RFC 9113, 8.7)
            return Unavailable("The engine takes no more requests now. Try again shortly.")
        if code == str(int(ErrorCodes.CANCEL)):
            return BackendCancelled("The engine gave the request up.")
        return BadBackend("The engine broke the stream off.")
    if reason == "Protocol error":
        return BadBackend("The engine's answer could not be understood.")
    return Unreachable(_LOST)
