"""One decoder or prefiller, called over one persistent gRPC connection.

A call is owned by one asyncio coroutine that opens it, pumps what arrives into a sink and resets the stream when it is
cancelled. Iterating a grpclib stream from Trio instead would leak it whenever the consumer is cancelled while it holds a
message.
"""

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from attrs import field, frozen
from google.protobuf.message import DecodeError
from grpclib.client import Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from ark_trio.errors import ArkError, BackendCancelled, BadBackend, Unavailable, Unreachable
from ark_trio.protocol.value import from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.channel import ChannelOptions, LimitedChannel, LimitedStream
from ark_trio.rpc.mailbox import Kept, Sink
from ark_trio.rpc.status import error_from_status
from ark_wire import ark_pb2
from ark_wire.inference import ControlRequest, ControlType

log = structlog.get_logger()

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Metadata = Sequence[tuple[str, str]]

_STREAMING_CALL = "/inference.Inference/StreamingCall"
_CALL = "/inference.Inference/Call"
_CONTROL = "/inference.Inference/Control"
_HEALTH = "/grpc.health.v1.Health/Check"
_LOST = "The connection to the engine was lost."


@frozen(kw_only=True)
class ArkChannel:
    """An open channel. Connects when first called, and again whenever the connection was lost."""

    bridge: Bridge
    options: ChannelOptions
    _grpc: LimitedChannel = field(alias="grpc")

    @property
    def open_streams(self) -> int:
        """HTTP/2 streams that have not been released."""
        return sum(len(protocol.processor.streams) for protocol in self._grpc.connections)

    async def stream(
        self, request: Request, sink: Sink[Response], *, metadata: Metadata = ()
    ) -> None:
        """Run a StreamingCall, feeding `sink`, until the engine ends it. Trio-flavoured.

        Ends by `sink.end()` or `sink.fail(error)`, never by an `ArkError`. Cancelled, it resets the gRPC stream with code
        CANCEL before it returns.
        """
        await self.bridge.run(self._own_stream, request, sink, metadata)

    async def call(self, request: Request, *, metadata: Metadata = ()) -> Response:
        """Run a unary Call. Trio-flavoured; the caller sets the deadline.

        Raises:
            ArkError: the call failed.
        """
        return await self.bridge.run(self._own_call, request, metadata)

    async def control(self, control_type: int) -> dict[str, Any]:
        """Run a Control call and return its outputs as plain values. Trio-flavoured; the caller sets the deadline.

        Raises:
            ArkError: the call failed; `NotImplementedByEngine` from engines that know no such control.
        """
        return await self.bridge.run(self._own_control, control_type)

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Connect with `tls` from now on; connections that live go on as they are."""
        self._grpc.renew(tls)

    async def serving(self) -> bool:
        """Ask gRPC's own health service. Trio-flavoured; the caller sets the deadline.

        Raises:
            ArkError: the call failed; `NotImplementedByEngine` from engines without that service.
        """
        return await self.bridge.run(self._own_health)

    async def _own_stream(self, request: Request, sink: Sink[Response], metadata: Metadata) -> None:
        """asyncio-flavoured."""
        try:
            with _errors_become_ours():
                async with self._open(_STREAMING_CALL, Cardinality.UNARY_STREAM, metadata) as call:
                    await call.exchange(request, sink, Response.FromString)
        except ArkError as error:
            sink.fail(error)
        else:
            sink.end()

    async def _own_call(self, request: Request, metadata: Metadata) -> Response:
        """asyncio-flavoured."""
        response: Response = await self._own_unary(_CALL, request, Response, metadata)
        return response

    async def _own_control(self, control_type: int) -> dict[str, Any]:
        """asyncio-flavoured. The answer is read by upb, which says of any bytes whether they are a message."""
        request = ControlRequest(req_id=uuid.uuid4().hex, control_type=ControlType(control_type))
        response = await self._own_unary(_CONTROL, request, ark_pb2.ControlResponse, ())
        return {key: from_value(value) for key, value in response.outputs.items()}

    async def _own_health(self) -> bool:
        """asyncio-flavoured."""
        answer = await self._own_unary(_HEALTH, HealthCheckRequest(), HealthCheckResponse, ())
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def _own_unary(
        self, route: str, request: Any, response_type: type[Any], metadata: Metadata
    ) -> Any:
        """asyncio-flavoured."""
        with _errors_become_ours():
            kept = Kept[Any]()
            async with self._open(
                route, Cardinality.UNARY_UNARY, metadata, type(request), response_type
            ) as call:
                await call.exchange(request, kept, response_type.FromString)
            if not kept.messages:
                raise BadBackend("The engine answered nothing.")
            return kept.messages[0]

    @asynccontextmanager
    async def _open(
        self,
        route: str,
        cardinality: Cardinality,
        metadata: Metadata,
        request_type: type[Any] = Request,
        response_type: type[Any] = Response,
    ) -> AsyncIterator[LimitedStream]:
        """Open a call on the connection, made first if need be. asyncio-flavoured."""
        await self._grpc.connected()
        call = self._grpc.request(
            route, cardinality, request_type, response_type, metadata=metadata
        )
        try:
            async with call:
                try:
                    yield call
                except asyncio.CancelledError:
                    _reset(call)
                    raise
        except GRPCError as error:
            log.info("engine_call_failed", status=error.status.name, reason=error.message)
            trailers = cast(Mapping[str, Any], call.trailing_metadata or {})
            raise error_from_status(error.status, error.message, trailers) from error


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


def _reset(call: "Stream[Any, Any]") -> None:
    """Tell the engine at once that the request was given up: RST_STREAM with code CANCEL, without waiting."""
    if call._send_request_done and call._stream.closable:
        call._stream.reset_nowait(ErrorCodes.CANCEL)


@contextlib.contextmanager
def _errors_become_ours() -> Iterator[None]:
    """Turn what grpclib, h2 and sockets raise into our errors."""
    try:
        yield
    except GRPCError as error:
        raise error_from_status(error.status, error.message, {}) from error
    except StreamTerminatedError as error:
        raise _terminated(str(error)) from error
    except OSError as error:
        raise Unreachable(_LOST) from error
    except (ProtocolError, H2Error, DecodeError, AssertionError) as error:
        log.warning("engine_broke_protocol", exc_info=error)
        raise BadBackend("The engine's answer could not be understood.") from error


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
