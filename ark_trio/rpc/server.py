"""The ARK service over gRPC, in front of an engine that knows nothing of gRPC.

Every call is one asyncio task (grpclib's) and one Trio task (the engine's), tied together: the Trio task runs in the
server's nursery, and whichever way the call ends (answered, reset by the client, connection lost, deadline, server
stopped) it is cancelled at once and has ended before the call's stream is released.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import structlog
import trio
from google.protobuf.message import DecodeError
from grpclib._typing import IServable
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Handler as CallHandler
from grpclib.server import Server, Stream

from ark_trio.errors import ArkError, InternalError, NotImplementedByEngine, ShuttingDown
from ark_trio.protocol.value import fill_value, from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server_connection import ServerOptions, ServerProtocol
from ark_trio.rpc.status import status_of_error
from ark_wire import ark_pb2
from ark_wire.inference import ControlType, InferenceBase

log = structlog.get_logger()

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Call = Stream[Any, Any]
T = TypeVar("T")

_SERVICE = "/inference.Inference/"
_STOPPING = "The engine is being stopped."
_CLOSING_S = 1.0
"""Time in which trailers and last frames may leave once the calls have ended."""


class Engine(Protocol):
    """What stands behind the service. All Trio-flavoured; each method runs in a task of its own call."""

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer a StreamingCall through `outbox`. Returning ends it well, an `ArkError` ends it with its status."""

    async def call(self, request: Request) -> Response:
        """Answer a Call."""

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a Control call with plain values."""


class ArkServer:
    """A server that listens. Made by `open_server`."""

    def __init__(self, service: "_Service", grpc: "_GrpcServer") -> None:
        self._service = service
        self._grpc = grpc
        self.port = grpc.port
        """The port that was bound."""

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._service.running)

    async def drain(self, within_s: float) -> None:
        """Stop accepting, refuse new calls, and wait until the running ones have ended. Trio-flavoured.

        What still runs after `within_s` ends as UNAVAILABLE.
        """
        self._service.draining = True
        self._grpc.stop_listening()
        with trio.move_on_after(within_s):
            await self._service.idle()
        for scope in tuple(self._service.running):
            scope.cancel()
        with trio.move_on_after(_CLOSING_S):
            await self._service.idle()


@asynccontextmanager
async def open_server(
    bridge: Bridge, engine: Engine, host: str, port: int, options: ServerOptions | None = None
) -> AsyncIterator[ArkServer]:
    """As `open_server_on`, on `host:port` (0: any free port).

    Raises:
        OSError: the address is taken or not of this host.
    """
    with bind_tcp(host, port) as listener:
        async with open_server_on(bridge, engine, listener, options) as server:
            yield server


@asynccontextmanager
async def open_server_on(
    bridge: Bridge,
    engine: Engine,
    listener: socket.socket,
    options: ServerOptions | None = None,
) -> AsyncIterator[ArkServer]:
    """Serve `engine` on `listener`, a bound socket, while the block runs. Trio-flavoured.

    At the block's end listening stops, running calls are cancelled, and connections closed; `ArkServer.drain` before
    it lets them finish. The socket is closed too.
    """
    service = _Service(engine, options or ServerOptions())
    grpc = await bridge.run(_start, service, listener)
    # The calls' nursery. A call begins with bytes on a connection, so no task of a caller of ours can own it.
    async with trio.open_nursery() as calls:
        service.nursery = calls
        try:
            yield ArkServer(service, grpc)
        finally:
            calls.cancel_scope.cancel()
            with trio.move_on_after(_CLOSING_S, shield=True):
                await bridge.run(grpc.stop)


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


async def _start(service: "_Service", listener: socket.socket) -> "_GrpcServer":
    """asyncio-flavoured."""
    grpc = _GrpcServer(service)
    await grpc.start(sock=listener, backlog=1024)
    return grpc


class _GrpcServer(Server):
    """grpclib's server that knows its connections, so that they can be closed: grpclib leaves them open."""

    def __init__(self, service: "_Service") -> None:
        self._service = service
        self._health = ServiceStatus()
        self._health.set(True)
        health = Health({service: [self._health], OVERALL: [self._health]})
        handlers: list[IServable] = [service, health]
        super().__init__(ServerReflection.extend(handlers), config=service.options.for_grpclib())
        self._connections: set[ServerProtocol] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = cast(asyncio.Server, self._server).sockets[0].getsockname()[1]
        return port

    def stop_listening(self) -> None:
        """Close the listening sockets and report as not serving."""
        self._health.set(False)
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """End calls and connections. asyncio-flavoured."""
        self.stop_listening()
        for handler in self._handlers:
            handler.close()
        await asyncio.gather(*(handler.wait_closed() for handler in self._handlers))
        for protocol in tuple(self._connections):
            protocol.connection.close()

    def _protocol_factory(self) -> ServerProtocol:
        self.__gc_step__()
        handler = CallHandler(
            self._mapping, self._codec, self._status_details_codec, self.__dispatch__
        )
        self._handlers.add(handler)
        protocol = ServerProtocol(
            handler,
            self._config,
            self._h2_config,
            options=self._service.options,
            on_lost=self._connections.discard,
        )
        self._connections.add(protocol)
        return protocol


class _Service(InferenceBase):
    """betterproto's service, its messages read and written by upb.

    That takes 10 µs instead of 575 for 20 messages; and of any bytes upb says whether they are a message, where
    betterproto raises whatever comes up.
    """

    def __init__(self, engine: Engine, options: ServerOptions) -> None:
        self.engine = engine
        self.options = options
        self.nursery: trio.Nursery | None = None
        self.draining = False
        self.running: set[trio.CancelScope] = set()
        self._idle = trio.Event()

    def __mapping__(self) -> dict[str, Handler]:
        """Return the service's methods, as grpclib asks for them."""
        streaming, unary = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        return {
            **super().__mapping__(),
            _SERVICE + "StreamingCall": Handler(self._on_stream, streaming, Request, Response),
            _SERVICE + "Call": Handler(self._on_call, unary, Request, Response),
            _SERVICE + "DistributeCall": Handler(self._on_unknown, unary, Request, Response),
            _SERVICE + "Control": Handler(
                self._on_control, unary, ark_pb2.ControlRequest, ark_pb2.ControlResponse
            ),
        }

    async def idle(self) -> None:
        """Wait until no call runs. Trio-flavoured."""
        while self.running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _on_stream(self, call: Call) -> None:
        """asyncio-flavoured, like all `_on_…`."""
        request = await self._receive(call)
        outbox = Outbox(call)

        async def work() -> None:
            await self.engine.stream(request, outbox)

        async with self._answering(call), self._running(work, outbox.close, request.req_id):
            await outbox.drain()

    async def _on_call(self, call: Call) -> None:
        request = await self._receive(call)
        async with self._answering(call):
            await call.send_message(
                await self._result(lambda: self.engine.call(request), request.req_id)
            )

    async def _on_control(self, call: Call) -> None:
        request = await self._receive(call)
        inputs = {key: from_value(value) for key, value in request.inputs.items()}
        async with self._answering(call):
            control_type = ControlType.try_value(request.control_type)
            outputs = await self._result(
                lambda: self.engine.control(control_type, inputs), request.req_id
            )
            response = ark_pb2.ControlResponse(
                req_id=request.req_id,
                control_name=request.control_name,
                control_type=request.control_type,
            )
            for key, value in outputs.items():
                fill_value(response.outputs[key], value)
            await call.send_message(response)

    async def _on_unknown(self, call: Call) -> None:
        async with self._answering(call):
            raise NotImplementedByEngine("This engine does not offer the method.")

    async def _receive(self, call: Call) -> Any:
        """Return the call's one request, which must come soon and whole."""
        try:
            async with asyncio.timeout(self.options.request_s):
                request = await call.recv_message()
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "The request did not arrive.") from error
        except NotImplementedError as error:
            raise GRPCError(Status.UNIMPLEMENTED, "Compressed messages are not taken.") from error
        except (DecodeError, AssertionError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, "The request can't be read.") from error
        if request is None:
            raise GRPCError(Status.INVALID_ARGUMENT, "The request is missing.")
        return request

    async def _result(self, work: Callable[[], Awaitable[T]], req_id: str) -> T:
        """Return what `work` (Trio-flavoured) returns. asyncio-flavoured."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def keep() -> None:
            result = await work()
            if not done.done():
                done.set_result(result)

        def close(error: ArkError | None) -> None:
            if error is not None and not done.done():
                done.set_exception(error)

        async with self._running(keep, close, req_id):
            return await done

    @asynccontextmanager
    async def _running(
        self,
        work: Callable[[], Awaitable[None]],
        close: Callable[[ArkError | None], None],
        req_id: str,
    ) -> AsyncIterator[None]:
        """Run `work` in Trio while the block runs: neither outlives the other. asyncio-flavoured.

        `close` hears how it ended.
        """
        if self.draining or self.nursery is None:
            raise ShuttingDown(_STOPPING)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        scope = trio.CancelScope()
        self.running.add(scope)
        self.nursery.start_soon(self._run, work, close, scope, ended, req_id)
        try:
            yield
        finally:
            scope.cancel()
            await _settled(ended)  # noqa: ASYNC102 (asyncio's cancels don't repeat; `_settled` bears more)

    async def _run(
        self,
        work: Callable[[], Awaitable[None]],
        close: Callable[[ArkError | None], None],
        scope: trio.CancelScope,
        ended: "asyncio.Future[None]",
        req_id: str,
    ) -> None:
        """Own one call's work in Trio."""
        # Cancelled, it is told so; a caller that has cancelled it itself no longer listens.
        error: ArkError | None = ShuttingDown(_STOPPING)
        try:
            with scope, structlog.contextvars.bound_contextvars(req_id=req_id):
                error = await _outcome(work)
        finally:
            self.running.discard(scope)
            close(error)
            if not ended.done():
                ended.set_result(None)
            if not self.running:
                self._idle.set()

    @asynccontextmanager
    async def _answering(self, call: Call) -> AsyncIterator[None]:
        """Tell the caller of an `ArkError`. asyncio-flavoured."""
        try:
            yield
        except ArkError as error:
            status, message, metadata = status_of_error(error)
            await call.send_trailing_metadata(
                status=status, status_message=message, metadata=metadata
            )


async def _outcome(work: Callable[[], Awaitable[None]]) -> ArkError | None:
    """Run `work`; return what its caller is to be told."""
    try:
        await work()
    except ArkError as error:
        return error
    except Exception:
        # A bug of an engine must cost one call, not the service.
        log.exception("engine_call_crashed")
        return InternalError("The engine failed.")
    return None


async def _settled(ended: "asyncio.Future[None]") -> None:
    """Wait for the Trio task even when cancelled again meanwhile. asyncio-flavoured.

    No bound: the task is cancelled already, and the server's nursery waits for it in any case.
    """
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait({ended})
        except asyncio.CancelledError as error:  # noqa: ASYNC103 (raised below)
            cancelled = error
    if cancelled is not None:
        raise cancelled
