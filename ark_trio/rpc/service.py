"""The calls of the ARK service, answered by an engine that knows nothing of gRPC.

Every call is one asyncio task (grpclib's) and one Trio task (the engine's), tied together: the Trio task runs in the
server's nursery, and whichever way the call ends (answered, reset by the client, connection lost, deadline, server
stopped) it is cancelled at once and has ended before the call's stream is released.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import structlog
import trio
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from ark_trio.errors import ArkError, InternalError, NotImplementedByEngine, ShuttingDown
from ark_trio.protocol.value import fill_value, from_value
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server_connection import ServerOptions
from ark_trio.rpc.status import status_of_error
from ark_wire import ark_pb2
from ark_wire.inference import ControlType, InferenceBase

log = structlog.get_logger()

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Call = Stream[Any, Any]
T = TypeVar("T")

SERVICE = "/inference.Inference/"
_STOPPING = "The engine is being stopped."


class Engine(Protocol):
    """What stands behind the service. All Trio-flavoured; each method runs in a task of its own call."""

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer a StreamingCall through `outbox`. Returning ends it well, an `ArkError` ends it with its status."""

    async def call(self, request: Request) -> Response:
        """Answer a Call."""

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a Control call with plain values."""


class ArkService(InferenceBase):
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
            SERVICE + "StreamingCall": Handler(self._on_stream, streaming, Request, Response),
            SERVICE + "Call": Handler(self._on_call, unary, Request, Response),
            SERVICE + "DistributeCall": Handler(self._on_unknown, unary, Request, Response),
            SERVICE + "Control": Handler(
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
