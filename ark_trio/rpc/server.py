"""The ARK server over gRPC: it listens, drains, and closes what it has opened.

Beside the ARK service it answers grpc.health.v1 and server reflection.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from grpclib._typing import IServable
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.protocol import Stream
from grpclib.reflection.service import ServerReflection
from grpclib.server import Handler as CallHandler
from grpclib.server import Server

from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.server_connection import ServerOptions, ServerProtocol
from ark_trio.rpc.service import SERVICE, ArkService
from ark_trio.rpc.service import Engine as Engine  # noqa: PLC0414 (part of this module's face)

_BACKLOG = 1024
_CLOSING_S = 1.0
"""Time in which trailers and last frames may leave once the calls have ended."""
_LINGER_S = 3.0
"""Time in which callers may read what the kernel still has for them, and close."""
_LOOK_S = 0.01


class ArkServer:
    """A server that listens. Made by `open_server`."""

    def __init__(self, bridge: Bridge, service: ArkService, grpc: "_GrpcServer") -> None:
        self._bridge = bridge
        self._service = service
        self._grpc = grpc
        self.port = grpc.port
        """The port that was bound."""

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._service.running)

    async def drain(self, within_s: float) -> None:
        """Stop accepting, refuse new calls, and wait until the running ones are answered. Trio-flavoured.

        What still runs after `within_s` ends as UNAVAILABLE.
        """
        self._service.draining = True
        self._grpc.stop_listening()
        with trio.move_on_after(within_s):
            await self._answered()
        for scope in tuple(self._service.running):
            scope.cancel()
        with trio.move_on_after(_CLOSING_S):
            await self._answered()

    async def _answered(self) -> None:
        """Wait until no call runs and a caller who reads slowly has been sent the last of its answer."""
        await self._service.idle()
        await self._bridge.run(self._grpc.sent)


@asynccontextmanager
async def open_server(
    bridge: Bridge, engine: Engine, host: str, port: int, options: ServerOptions | None = None
) -> AsyncIterator[ArkServer]:
    """As `open_server_on`, on `host:port` (0: any free port).

    Raises:
        OSError: the address is taken or not of this host.
    """
    with bind_tcp(host, port) as listener:
        async with open_server_on(bridge, engine, [listener], options) as server:
            yield server


@asynccontextmanager
async def open_server_on(
    bridge: Bridge,
    engine: Engine,
    listeners: Sequence[socket.socket],
    options: ServerOptions | None = None,
) -> AsyncIterator[ArkServer]:
    """Serve `engine` on `listeners`, bound sockets, while the block runs. Trio-flavoured.

    At the block's end listening stops, running calls are cancelled, and connections closed; `ArkServer.drain` before
    it lets them finish. The sockets are closed too. The server's port is the first one's.
    """
    service = ArkService(engine, options or ServerOptions())
    grpc = await bridge.run(_start, service, listeners)
    # The calls' nursery. A call begins with bytes on a connection, so no task of a caller of ours can own it.
    async with trio.open_nursery() as calls:
        service.nursery = calls
        try:
            yield ArkServer(bridge, service, grpc)
        finally:
            calls.cancel_scope.cancel()
            with trio.move_on_after(_LINGER_S, shield=True):
                await bridge.run(grpc.stop)
            grpc.abort()


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind `host:port` (0: any free port) for `open_server_on`; connections are refused until that listens.

    Raises:
        OSError: the address is taken or not of this host.
    """
    family, kind, proto, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


async def _start(service: ArkService, listeners: Sequence[socket.socket]) -> "_GrpcServer":
    """asyncio-flavoured."""
    first, *others = listeners
    grpc = _GrpcServer(service)
    await grpc.start(sock=first, backlog=_BACKLOG, ssl=service.options.tls)
    for other in others:
        await grpc.listen_too(other)
    return grpc


class _CallHandler(CallHandler):
    """A connection's calls, those of the ARK service known: a drain waits for them, and for no health watch."""

    answering: "set[asyncio.Task[None]]"

    def accept(self, stream: Stream, headers: Any, release_stream: Callable[[], Any]) -> None:
        super().accept(stream, headers, release_stream)
        if dict(headers)[":path"].startswith(SERVICE):
            task = self._tasks[stream]
            self.answering.add(task)
            task.add_done_callback(self.answering.discard)


class _GrpcServer(Server):
    """grpclib's server that knows its connections, so that they can be closed: grpclib leaves them open."""

    def __init__(self, service: ArkService) -> None:
        self._service = service
        self._health = ServiceStatus()
        self._health.set(True)
        health = Health({service: [self._health], OVERALL: [self._health]})
        handlers: list[IServable] = [service, health]
        super().__init__(ServerReflection.extend(handlers), config=service.options.for_grpclib())
        self._connections: set[ServerProtocol] = set()
        self._others: list[asyncio.Server] = []
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = cast(asyncio.Server, self._server).sockets[0].getsockname()[1]
        return port

    async def listen_too(self, listener: socket.socket) -> None:
        """Serve the same on a second socket. asyncio-flavoured."""
        loop = asyncio.get_running_loop()
        self._others.append(
            await loop.create_server(
                self._protocol_factory,
                sock=listener,
                backlog=_BACKLOG,
                ssl=self._service.options.tls,
            )
        )

    def stop_listening(self) -> None:
        """Close the listening sockets and report as not serving."""
        self._health.set(False)
        for server in (self._server, *self._others):
            if server is not None:
                server.close()

    async def sent(self) -> None:
        """Wait until all answers of the service, trailers too, have been handed to the kernel. asyncio-flavoured.

        An engine's work ends before that: its last messages wait in the `Outbox` for a window, in the transport for
        the socket. No transport tells when it has become empty, so it is looked at.
        """
        while self._answering or any(protocol.unsent for protocol in self._connections):  # noqa: ASYNC110 (see above)
            await asyncio.sleep(_LOOK_S)

    async def stop(self) -> None:
        """End calls, then connections, and wait until the callers have closed theirs. asyncio-flavoured.

        A socket that is closed while its caller's WINDOW_UPDATEs come in answers with a reset, and with that the caller
        loses all that it has not read yet. So only our half is closed: the other end comes when all is read.
        """
        self.stop_listening()
        for handler in self._handlers:
            handler.close()
        await asyncio.gather(*(handler.wait_closed() for handler in self._handlers))
        for protocol in tuple(self._connections):
            protocol.end()
        while self._connections:  # noqa: ASYNC110 (short, and once in a server's life)
            await asyncio.sleep(_LOOK_S)

    def abort(self) -> None:
        """Close the connections that are left."""
        for protocol in tuple(self._connections):
            protocol.connection.close()

    def _protocol_factory(self) -> ServerProtocol:
        self.__gc_step__()
        handler = _CallHandler(
            self._mapping, self._codec, self._status_details_codec, self.__dispatch__
        )
        handler.answering = self._answering
        return ServerProtocol(
            handler,
            self._config,
            self._h2_config,
            options=self._service.options,
            on_made=self._know,
            on_lost=self._connections.discard,
        )

    def _know(self, protocol: ServerProtocol) -> None:
        """A connection is one once it is made: of a TLS handshake that failed nothing more is heard."""
        self._handlers.add(cast(CallHandler, protocol.handler))
        self._connections.add(protocol)
