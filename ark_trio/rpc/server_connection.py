"""One client's connection, as the server sees it: bounded, and written to once per turn of the loop.

grpclib writes to the socket once per frame. A decode step brings one frame a stream; written together they reach the
client as one read, which is what makes a token cheap there.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream, _set_nodelay
from grpclib.utils import Wrapper
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from ark_trio.rpc.greeting import greet

_FLUSH_AT_BYTES = 256 << 10
"""What may be held back before the turn of the loop ends."""


@frozen(kw_only=True)
class ServerOptions:
    """What one connection allows. Sizes in bytes, times in seconds."""

    max_message_bytes: int = 32 << 20
    """Largest request accepted; grpclib itself has no limit."""
    max_streams: int = 8192
    """Calls at once on a connection. h2's default of 100 makes a gateway's 101st request wait without a bound."""
    stream_window_bytes: int = 256 << 10
    connection_window_bytes: int = 64 << 20
    ping_s: float = 30.0
    ping_timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None
    """None: plaintext."""
    request_s: float = 30.0
    """Time in which a request must have arrived once its stream is open."""

    def for_grpclib(self) -> Configuration:
        """Return grpclib's part of it."""
        return Configuration(
            http2_connection_window_size=self.connection_window_bytes,
            http2_stream_window_size=self.stream_window_bytes,
            _keepalive_time=self.ping_s,
            _keepalive_timeout=self.ping_timeout_s,
            _http2_max_pings_without_data=0,  # a decoder may be silent for long; ours is the side that knows
            _http2_min_sent_ping_interval_without_data=self.ping_s,
        )


class ServerProtocol(H2Protocol):
    """grpclib's protocol over a gathering transport, with every limit explicit."""

    def __init__(
        self,
        *args: Any,
        options: ServerOptions,
        on_made: Callable[["ServerProtocol"], None],
        on_lost: Callable[["ServerProtocol"], None],
    ) -> None:
        super().__init__(*args)
        self._options = options
        self._on_made = on_made
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib's, except for the classes of transport and connection, and the stream limit."""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _set_nodelay(sock)
        h2 = H2Connection(config=self.h2_config)
        greet(
            h2,
            stream_window_bytes=self._options.stream_window_bytes,
            connection_window_bytes=self._options.connection_window_bytes,
            settings={SettingCodes.MAX_CONCURRENT_STREAMS: self._options.max_streams},
        )
        gathering = GatheringTransport(cast(asyncio.Transport, transport))
        self.connection = _BoundedConnection(
            h2, gathering, config=self.config, options=self._options
        )
        self.connection.flush()
        self.connection.initialize()
        self.processor = EventsProcessor(self.handler, self.connection)
        self._on_made(self)

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel does not have yet."""
        return cast(_BoundedConnection, self.connection).gathering.unsent

    def end(self) -> None:
        """Write nothing more; what is written still arrives. The connection is lost when the caller closes too."""
        cast(_BoundedConnection, self.connection).gathering.end()

    def data_received(self, data: bytes) -> None:
        """As grpclib's, but a peer that breaks HTTP/2 further down loses its connection only."""
        try:
            super().data_received(data)
        except (ProtocolError, NotImplementedError):
            self.processor.close("Protocol error")

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the calls of this connection."""
        super().connection_lost(exc)
        self._on_lost(self)


class GatheringTransport:
    """A transport that holds what is written until the loop's turn ends, then writes it once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ended = False

    def write(self, data: bytes) -> None:
        """Hold `data` back, at most until the turn ends. Callable from either flavour."""
        if not data:
            return
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _FLUSH_AT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held now."""
        if self._held and not self._ended and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0

    @property
    def unsent(self) -> int:
        """Bytes written that the kernel does not have yet; 0 once the connection is lost."""
        waiting = 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()
        return self._held_bytes + waiting

    def end(self) -> None:
        """Write what is held, then close our half; what is written later is dropped."""
        self.flush()
        self._ended = True
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS closes by a word of its own, and waits for the answer
            self._transport.close()

    def close(self) -> None:
        """Write what is held, then close."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport says."""
        return self._transport.get_extra_info(name, default)


class _BoundedConnection(Connection):
    """grpclib's connection whose streams refuse messages over the limit."""

    def __init__(
        self,
        h2: H2Connection,
        gathering: GatheringTransport,
        *,
        config: Configuration,
        options: ServerOptions,
    ) -> None:
        super().__init__(h2, cast(asyncio.Transport, gathering), config=config)
        self.gathering = gathering
        self.options = options

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> "_BoundedStream":
        return _BoundedStream(
            self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper
        )


class _BoundedStream(Stream):
    """grpclib's HTTP/2 stream; it asks here for every message's bytes, so here is the bound."""

    async def recv_data(self, size: int) -> bytes:
        """Return `size` bytes. asyncio-flavoured.

        Raises:
            GRPCError: INVALID_ARGUMENT, since the same message can't fit later either.
        """
        limit = cast(_BoundedConnection, self.connection).options.max_message_bytes
        if size > limit:
            text = f"The request is {size} bytes long; this engine takes {limit}."
            raise GRPCError(Status.INVALID_ARGUMENT, text)
        return await super().recv_data(size)
