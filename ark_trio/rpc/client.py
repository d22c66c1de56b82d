"""One decoder or prefiller, called over one persistent gRPC connection.

A call is owned by one asyncio coroutine that opens it, pumps what arrives into a sink and resets the stream when it is
cancelled. Iterating a grpclib stream from Trio instead would leak it whenever the consumer is cancelled while it holds a
message.
"""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from attrs import field, frozen
from google.protobuf.message import DecodeError
from grpclib.client import Channel, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from ark_trio.errors import ArkError, BackendCancelled, BadBackend, Unreachable
from ark_trio.protocol.value import from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.mailbox import Sink
from ark_trio.rpc.status import error_from_status
from ark_wire import ark_pb2
from ark_wire.inference import ControlRequest, ControlType, InferenceStub

log = structlog.get_logger()

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Metadata = Sequence[tuple[str, str]]

_STREAMING_CALL = "/inference.Inference/StreamingCall"
_CALL = "/inference.Inference/Call"
_UNREACHABLE = "The engine behind this model can't be reached now. Try again shortly."
_LOST = "The connection to the engine was lost."


@frozen(kw_only=True)
class ChannelOptions:
    """What one connection allows. Sizes in bytes, times in seconds."""

    connect_s: float = 5.0
    max_message_bytes: int = 4 << 20
    """Largest message accepted; grpclib itself has no limit."""
    stream_window_bytes: int = 256 << 10
    """HTTP/2 window of a stream: what one reader that has stalled can hold here."""
    connection_window_bytes: int = 64 << 20
    """HTTP/2 window of the connection. It must hold many stalled streams: with grpclib's default of 4 MiB for both, one
    unread stream stops all others."""
    ping_s: float = 30.0
    ping_timeout_s: float = 10.0
    max_silent_pings: int = 2
    """Pings without traffic of ours between them. gRPC servers answer a third within five minutes with GOAWAY, so TCP
    keep-alive watches for dead hosts beyond it."""


@frozen(kw_only=True)
class ArkChannel:
    """An open channel. Connects when first called, and again whenever the connection was lost."""

    bridge: Bridge
    options: ChannelOptions
    _grpc: "_LimitedChannel" = field(alias="grpc")

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

    async def _own_stream(self, request: Request, sink: Sink[Response], metadata: Metadata) -> None:
        """asyncio-flavoured."""
        try:
            with _errors_become_ours():
                async with self._open(_STREAMING_CALL, Cardinality.UNARY_STREAM, metadata) as call:
                    await call.send_message(request, end=True)
                    while (message := await call.recv_message()) is not None:
                        if not sink.feed(message):
                            await sink.room()
        except ArkError as error:
            sink.fail(error)
        else:
            sink.end()

    async def _own_call(self, request: Request, metadata: Metadata) -> Response:
        """asyncio-flavoured."""
        with _errors_become_ours():
            async with self._open(_CALL, Cardinality.UNARY_UNARY, metadata) as call:
                await call.send_message(request, end=True)
                response = await call.recv_message()
            if response is None:
                raise BadBackend("The engine answered nothing.")
            return response

    async def _own_control(self, control_type: int) -> dict[str, Any]:
        """asyncio-flavoured."""
        request = ControlRequest(req_id=uuid.uuid4().hex, control_type=ControlType(control_type))
        with _errors_become_ours():
            await self._grpc.connected()
            response = await InferenceStub(cast(Channel, self._grpc)).control(request)
        outputs: Mapping[str, Any] = response.outputs
        return {
            key: from_value(ark_pb2.Value.FromString(bytes(value)))
            for key, value in outputs.items()
        }

    @asynccontextmanager
    async def _open(
        self, route: str, cardinality: Cardinality, metadata: Metadata
    ) -> AsyncIterator["Stream[Request, Response]"]:
        """Open a call on the connection, made first if need be. asyncio-flavoured."""
        await self._grpc.connected()
        call = self._grpc.request(route, cardinality, Request, Response, metadata=metadata)
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


async def _make_channel(host: str, port: int, options: ChannelOptions) -> "_LimitedChannel":
    """asyncio-flavoured, since grpclib binds the running loop when a channel is made."""
    return _LimitedChannel(host, port, options)


class _LimitedStream(Stream[Any, Any]):
    """grpclib's call with a bound on the size of a message."""

    async def recv_message(self) -> Any:
        """Return the next message, or None at the end. asyncio-flavoured.

        Raises:
            BadBackend: the message is compressed, over the limit, or not the type that was promised.
        """
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        with self._wrapper:
            header = await self._stream.recv_data(5)
            if not header:
                return None
            size = int.from_bytes(header[1:], "big")
            limit = cast(_LimitedChannel, self._channel).options.max_message_bytes
            if header[0] or size > limit:
                log.warning(
                    "engine_message_refused", compressed=bool(header[0]), bytes=size, limit=limit
                )
                raise BadBackend(
                    "The engine sent a message that is compressed or over the size limit."
                )
            return self._codec.decode(await self._stream.recv_data(size), self._recv_type)


class _LimitedChannel(Channel):
    """grpclib's channel with every limit explicit: connecting, message size, windows, keep-alive."""

    def __init__(self, host: str, port: int, options: ChannelOptions) -> None:
        config = Configuration(
            http2_connection_window_size=options.connection_window_bytes,
            http2_stream_window_size=options.stream_window_bytes,
            _keepalive_time=options.ping_s,
            _keepalive_timeout=options.ping_timeout_s,
            _http2_max_pings_without_data=options.max_silent_pings,
            _http2_min_sent_ping_interval_without_data=options.ping_s,
        )
        super().__init__(host, port, config=config)
        self.options = options

    async def connected(self) -> None:
        """Connect unless connected, within `connect_s`. asyncio-flavoured.

        No timer when there is nothing to wait for: asyncio keeps a cancelled one until its time has come.

        Raises:
            Unreachable: nobody answers there.
        """
        if self._connected:
            return
        try:
            async with asyncio.timeout(self.options.connect_s):
                await self.__connect__()
        except TimeoutError as error:
            raise Unreachable(_UNREACHABLE, code="connect_timeout") from error
        except OSError as error:
            raise Unreachable(_UNREACHABLE) from error

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        **options: Any,
    ) -> "_LimitedStream":
        """Return a call whose messages are bounded; the stub comes through here too."""
        plain = super().request(name, cardinality, request_type, reply_type, **options)
        return _LimitedStream(
            self,
            name,
            plain._metadata,
            cardinality,
            request_type,
            reply_type,
            codec=self._codec,
            status_details_codec=self._status_details_codec,
            dispatch=self.__dispatch__,
            deadline=plain._deadline,
        )

    async def _create_connection(self) -> H2Protocol:
        protocol = await super()._create_connection()
        sock = protocol.connection._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            _watch_for_dead_host(sock, self.options)
        return protocol


def _watch_for_dead_host(sock: socket.socket, options: ChannelOptions) -> None:
    """Have the kernel notice a host that vanished, however long the stream is silent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(options.ping_s)))
    sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(options.ping_timeout_s / 3))
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(
        socket.IPPROTO_TCP,
        socket.TCP_USER_TIMEOUT,
        int((options.ping_s + options.ping_timeout_s) * 1000),
    )


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
        if reason.endswith(f"error_code: {ErrorCodes.CANCEL}") or "CANCEL" in reason:
            return BackendCancelled("The engine gave the request up.")
        return BadBackend("The engine broke the stream off.")
    if reason == "Protocol error":
        return BadBackend("The engine's answer could not be understood.")
    return Unreachable(_LOST)
