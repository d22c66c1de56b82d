"""grpclib's channel with every limit explicit: connecting, streams a connection, message size, windows, keep-alive.

grpclib has one connection a channel, waits without bound when the server's stream limit is reached, takes messages of any
size, and ends all streams at once when the server says GOAWAY, which asks only that no new ones come (RFC 9113, 6.8).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar, cast

import structlog
from attrs import frozen
from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

from ark_trio.errors import ArkError, Overloaded, Unreachable
from ark_trio.rpc.connection import ClientProtocol

log = structlog.get_logger()

M = TypeVar("M")

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
    gather_s: Callable[[], float] = lambda: 0.0
    """Tells how long to let pass between two reads, so that more comes in one; asked after each. Not by TLS."""
    tls: ssl.SSLContext | None = None
    """None: plaintext."""
    server_name: str | None = None
    """What the engine's certificate must be for; None: the host that is called."""
    max_silent_pings: int = 2
    """Pings without traffic of ours between them. gRPC servers answer a third within five minutes with GOAWAY, so TCP
    keep-alive watches for dead hosts beyond it."""


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
            ssl_target_name_override=options.server_name,
        )
        super().__init__(host, port, ssl=options.tls, config=config)
        self.options = options
        self.connections: list[ClientProtocol] = []
        """Those that live, the ones that take no more streams included."""
        self._released = asyncio.Event()

    def renew(self, tls: ssl.SSLContext | None) -> None:
        """Connect with `tls` from now on; connections that live go on as they are."""
        self._ssl = tls
        self._scheme = "https" if tls else "http"

    async def connected(self) -> None:
        """Have a connection with room for a stream. asyncio-flavoured; the caller sets the deadline.

        Raises:
            Unreachable: nobody answers there.
        """
        try:
            while self.with_room() is None:
                await self._make_room()
        except OSError as error:
            raise Unreachable(UNREACHABLE) from error

    def too_late(self) -> ArkError:
        """Return why there was no connection with room in time."""
        if self._full():
            text = "The engine takes no more requests now. Try again shortly."
            return Overloaded(text, code="stream_limit")
        return Unreachable(UNREACHABLE, code="connect_timeout")

    async def _make_room(self) -> None:
        """Connect, or wait until a stream or a connection ends. asyncio-flavoured."""
        async with self._connect_lock:
            if self.with_room() is None and not self._full():
                await self._create_connection()
                return
        if self._full():
            self._released.clear()
            await self._released.wait()

    def close(self) -> None:
        """End all connections."""
        for protocol in tuple(self.connections):
            transport = protocol.transport
            protocol.processor.close()
            if self._ssl is not None:
                # By TLS asyncio would wait for the other side's goodbye, longer than its loop may live.
                transport.abort()

    def __del__(self) -> None:
        """Nothing: who opened the channel has closed it."""

    def with_room(self) -> "ClientProtocol | None":
        """Return a connection on which a stream may begin, if there is one."""
        for protocol in self.connections:  # a generator takes longer than the whole question
            if protocol.has_room:
                return protocol
        return None

    def _full(self) -> bool:
        lasting = sum(not connection.going_away for connection in self.connections)
        most = self.options.max_connections
        return lasting >= most or len(self.connections) >= _GOING_AWAY_FACTOR * most

    def _protocol_factory(self) -> "ClientProtocol":
        return ClientProtocol(
            Handler(),
            self._config,
            self._h2_config,
            gather_s=self.options.gather_s,
            on_lost=self._on_lost,
            on_released=self._on_released,
        )

    async def _create_connection(self) -> H2Protocol:
        """Connect, and wait for the engine's settings: they say how many streams it takes."""
        protocol = cast(ClientProtocol, await super()._create_connection())
        self.connections.append(protocol)
        protocol.read_in_trio()
        sock = protocol.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            _watch_for_dead_host(sock, self.options)
        if self._ssl is not None:
            _require_h2(protocol)
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


def _require_h2(protocol: ClientProtocol) -> None:
    agreed = protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol()
    if agreed != "h2":
        protocol.processor.close("Connection given up")
        raise ConnectionError("does not agree to speak HTTP/2")


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
