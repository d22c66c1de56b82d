"""grpclib's channel with every limit explicit: connecting, streams a connection, message size, windows, keep-alive.

grpclib has one connection a channel, waits without bound when the server's stream limit is reached, takes messages of any
size, and ends all streams at once when the server says GOAWAY, which asks only that no new ones come (RFC 9113, 6.8).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, cast

import structlog
from attrs import frozen
from grpclib.client import Channel, Handler, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, _set_nodelay
from grpclib.protocol import Stream as H2Stream
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    StreamEnded,
)
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
from hyperframe.frame import WindowUpdateFrame

from ark_trio.errors import BadBackend, Overloaded, Unreachable

log = structlog.get_logger()

_GOING_AWAY_FACTOR = 4
"""Connections that take no more streams don't count, up to so many times the limit in all."""
UNREACHABLE = "The engine behind this model can't be reached now. Try again shortly."


@frozen(kw_only=True)
class ChannelOptions:
    """What one channel allows. Sizes in bytes, times in seconds."""

    connect_s: float = 5.0
    """Time to connect, and to wait for a free stream when the engine allows no more."""
    max_connections: int = 8
    """Connections over which calls are spread once the engine's limit of streams a connection is reached."""
    max_message_bytes: int = 4 << 20
    """Largest message accepted; grpclib itself has no limit."""
    stream_window_bytes: int = 256 << 10
    """HTTP/2 window of a stream: what one reader that has stalled can hold here."""
    connection_window_bytes: int = 64 << 20
    """HTTP/2 window of the connection, opened again as data arrives, so that no unread stream can close it."""
    ping_s: float = 30.0
    ping_timeout_s: float = 10.0
    max_silent_pings: int = 2
    """Pings without traffic of ours between them. gRPC servers answer a third within five minutes with GOAWAY, so TCP
    keep-alive watches for dead hosts beyond it."""


class LimitedStream(Stream[Any, Any]):
    """grpclib's call with a bound on the size of a message."""

    message_bytes = 0
    """Size of the last message."""

    async def recv_message(self) -> Any:
        """Return the next message, or None at the end. asyncio-flavoured.

        Raises:
            BadBackend: the message is compressed or over the limit.
        """
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        with self._wrapper:
            header = await self._stream.recv_data(5)
            if not header:
                return None
            size = int.from_bytes(header[1:], "big")
            limit = cast(LimitedChannel, self._channel).options.max_message_bytes
            if header[0] or size > limit:
                log.warning(
                    "engine_message_refused", compressed=bool(header[0]), bytes=size, limit=limit
                )
                raise BadBackend(
                    "The engine sent a message that is compressed or over the size limit."
                )
            self.message_bytes = size
            return self._codec.decode(await self._stream.recv_data(size), self._recv_type)


class LimitedChannel(Channel):
    """A channel of several connections, opened as the engine's limits ask for them."""

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
        self.connections: list[ClientProtocol] = []
        """Those that live, the ones that take no more streams included."""
        self._released = asyncio.Event()

    async def connected(self) -> None:
        """Have a connection with room for a stream, within `connect_s`. asyncio-flavoured.

        No timer when there is nothing to wait for: asyncio keeps a cancelled one until its time has come.

        Raises:
            Unreachable: nobody answers there.
            Overloaded: the engine allows no more streams, and none has ended in time.
        """
        if self._with_room() is not None:
            return
        try:
            async with asyncio.timeout(self.options.connect_s):
                await self.__connect__()
        except TimeoutError as error:
            if self._full():
                text = "The engine takes no more requests now. Try again shortly."
                raise Overloaded(text, code="stream_limit") from error
            raise Unreachable(UNREACHABLE, code="connect_timeout") from error
        except OSError as error:
            raise Unreachable(UNREACHABLE) from error

    async def __connect__(self) -> H2Protocol:
        """Return a connection with room, as grpclib asks when a call begins. asyncio-flavoured."""
        while (protocol := self._with_room()) is None:
            async with self._connect_lock:
                if self._with_room() is None and not self._full():
                    await self._create_connection()
                    continue
            if self._full():
                self._released.clear()
                await self._released.wait()
        return protocol

    def close(self) -> None:
        """End all connections."""
        for protocol in tuple(self.connections):
            protocol.processor.close()

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        **options: Any,
    ) -> LimitedStream:
        """Return a call whose messages are bounded; the stub comes through here too."""
        plain = super().request(name, cardinality, request_type, reply_type, **options)
        return LimitedStream(
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

    def __del__(self) -> None:
        """Nothing: who opened the channel has closed it."""

    def _with_room(self) -> "ClientProtocol | None":
        return next((p for p in self.connections if p.has_room), None)

    def _full(self) -> bool:
        lasting = sum(not connection.going_away for connection in self.connections)
        most = self.options.max_connections
        return lasting >= most or len(self.connections) >= _GOING_AWAY_FACTOR * most

    def _protocol_factory(self) -> "ClientProtocol":
        return ClientProtocol(
            Handler(),
            self._config,
            self._h2_config,
            on_lost=self._on_lost,
            on_released=self._on_released,
        )

    async def _create_connection(self) -> H2Protocol:
        """Connect, and wait for the engine's settings: they say how many streams it takes."""
        protocol = cast(ClientProtocol, await super()._create_connection())
        self.connections.append(protocol)
        sock = protocol.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            _watch_for_dead_host(sock, self.options)
        try:
            await protocol.settled.wait()
        except asyncio.CancelledError:
            protocol.processor.close("Connection given up")
            raise
        if protocol.lost:
            raise ConnectionError("closed before its settings came")
        return protocol

    def _on_lost(self, protocol: "ClientProtocol") -> None:
        if protocol in self.connections:
            self.connections.remove(protocol)
        self._released.set()

    def _on_released(self) -> None:
        self._released.set()


class ClientProtocol(H2Protocol):
    """One connection. It goes on after GOAWAY until its last stream has ended."""

    def __init__(
        self,
        *args: Any,
        on_lost: Callable[["ClientProtocol"], None],
        on_released: Callable[[], None],
    ) -> None:
        super().__init__(*args)
        self._on_lost = on_lost
        self._on_released = on_released
        self.transport: asyncio.Transport
        self.settled = asyncio.Event()
        """The engine's settings have come, or nothing will."""
        self.lost = False
        self.going_away = False

    @property
    def has_room(self) -> bool:
        """Another stream may begin here."""
        if (
            self.lost
            or self.going_away
            or not self.settled.is_set()
            or self.connection.is_closing()
        ):
            return False
        limit = self.connection._connection.remote_settings.max_concurrent_streams
        return len(self.processor.streams) < limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib's, except for the classes of connection and processor."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _set_nodelay(sock)
        h2 = _EnduringConnection(config=self.h2_config)
        h2.initiate_connection()
        initial = h2.local_settings.initial_window_size
        if self.config.http2_connection_window_size > initial:
            h2.increment_flow_control_window(self.config.http2_connection_window_size - initial)
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size})
        self.connection = Connection(h2, self.transport, config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = _Processor(self.handler, self.connection, self)

    def data_received(self, data: bytes) -> None:
        """As grpclib's, but an engine that sends what h2 knows and grpclib does not keeps its connection."""
        try:
            super().data_received(data)
        except NotImplementedError as error:
            log.debug("engine_event_ignored", reason=repr(error))
            self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the calls of this connection."""
        super().connection_lost(exc)

    def end(self) -> None:
        """Take no more streams; nothing comes any more."""
        self.lost = True
        self.settled.set()
        self._on_lost(self)

    def go_away(self, last_stream_id: int) -> None:
        """The engine takes no new streams here; those up to `last_stream_id` go on."""
        self.going_away = True
        log.info("engine_goes_away", streams=len(self.processor.streams))
        for stream_id, stream in tuple(self.processor.streams.items()):
            if stream_id > last_stream_id:
                stream.__terminated__("Connection lost")
        self.release()

    def release(self) -> None:
        """A stream has ended: there may be room now, or nothing left to stay for."""
        self._on_released()
        if self.going_away and not self.processor.streams:
            self.processor.close("Connection given up")


class _EnduringConnection(H2Connection):
    """h2's connection, which would take no more frames once GOAWAY has come.

    And whose window would be used up by what waits in streams that nobody reads, so that all others stop. Here what has
    arrived opens the connection's window again at once; each stream's own window bounds what it can hold.
    """

    def acknowledge_arrival(self, size: int) -> None:
        """Open the connection's window by `size` bytes that have arrived."""
        increment = self._inbound_flow_control_window_manager.process_bytes(size)
        if increment:
            frame = WindowUpdateFrame(0)
            frame.window_increment = increment
            self._prepare_for_sending([frame])

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Open a stream's window by what has been read of it; h2's own opens the connection's too."""
        with contextlib.suppress(StreamClosedError):
            stream = self._get_stream_by_id(stream_id)
            self._prepare_for_sending(stream.acknowledge_received_data(acknowledged_size))

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


class _Processor(EventsProcessor):
    """grpclib's events, with room, settings and GOAWAY told to the protocol."""

    def __init__(self, handler: Any, connection: Connection, protocol: ClientProtocol) -> None:
        super().__init__(handler, connection)
        self._protocol = protocol

    def register(self, stream: H2Stream) -> Callable[[], None]:
        """Know a stream until it is released."""
        release = super().register(stream)

        def release_and_tell() -> None:
            release()
            self._protocol.release()

        return release_and_tell

    def close(self, reason: str = "Connection closed") -> None:
        """End the connection and the calls on it. The first reason counts: that the connection is lost then, too, is ours."""
        if not self._protocol.lost:
            self._protocol.end()
            super().close(reason)

    def process_data_received(self, event: DataReceived) -> None:
        """Take what has arrived, read or not."""
        h2 = cast(_EnduringConnection, self.connection._connection)
        h2.acknowledge_arrival(event.flow_controlled_length)
        super().process_data_received(event)

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        """Take the engine's settings."""
        super().process_remote_settings_changed(event)
        self._protocol.settled.set()

    def process_stream_ended(self, event: StreamEnded) -> None:
        """A stream that ends without trailers has no status, and none will come: grpclib would wait for them."""
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.trailers_received.is_set():
            stream.trailers = stream.trailers or [("grpc-status", str(Status.UNKNOWN.value))]
            stream.trailers_received.set()
        super().process_stream_ended(event)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        """Heed GOAWAY."""
        self._protocol.go_away(event.last_stream_id or 0)


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
