"""An engine at the level of HTTP/2 frames, which does what no gRPC library would: stay silent, send garbage, go away."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import trio
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamReset, WindowUpdated
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.step import Step
from ark_trio.settings.address import Address

Act = Callable[["WireCall"], Awaitable[None]]


@define(eq=False)
class WireCall:
    """One StreamingCall, to be answered frame by frame."""

    peer: "Peer"
    stream_id: int
    began: float = field(factory=trio.current_time)
    reset_at: float | None = None
    reset_code: int | None = None
    ended: trio.Event = field(factory=trio.Event)
    begun: bool = False
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def play(self, act: Act) -> None:
        """Act until done, or given up by the client, which may be before we have begun."""
        with self.scope, suppress(StreamClosedError):
            await act(self)

    async def headers(self, *more: tuple[str, str]) -> None:
        if self.begun:
            return
        base = [(":status", "200"), ("content-type", "application/grpc+proto")]
        self.peer.h2.send_headers(self.stream_id, [*base, *more])
        await self.peer.flush()

    async def message(self, step: Step, prefix: bytes | None = None) -> None:
        (response,) = encode_step(step, req_id="x", model="m")
        await self.raw(response.SerializeToString(), prefix)

    async def raw(self, body: bytes, prefix: bytes | None = None) -> None:
        framed = (prefix or b"\0" + len(body).to_bytes(4, "big")) + body
        for start in range(0, len(framed), 16_384):
            chunk = framed[start : start + 16_384]
            while self.peer.h2.local_flow_control_window(self.stream_id) < len(chunk):
                self.peer.window = trio.Event()
                await self.peer.window.wait()
            self.peer.h2.send_data(self.stream_id, chunk)
        await self.peer.flush()

    async def trailers(self, status: int, message: str = "") -> None:
        fields = [("grpc-status", str(status)), ("grpc-message", message)]
        self.peer.h2.send_headers(self.stream_id, fields, end_stream=True)
        await self.peer.flush()

    async def only_trailers(self, status: int, message: str = "") -> None:
        head = [(":status", "200"), ("content-type", "application/grpc+proto")]
        fields = [*head, ("grpc-status", str(status)), ("grpc-message", message)]
        self.peer.h2.send_headers(self.stream_id, fields, end_stream=True)
        await self.peer.flush()

    async def reset(self, code: ErrorCodes) -> None:
        self.peer.h2.reset_stream(self.stream_id, code)
        await self.peer.flush()


@define(eq=False)
class Peer:
    """One connection to the engine."""

    stream: trio.SocketStream
    h2: H2Connection
    window: trio.Event = field(factory=trio.Event)
    _turn: trio.Lock = field(factory=trio.Lock)

    async def flush(self) -> None:
        async with self._turn:
            await self.stream.send_all(self.h2.data_to_send())

    async def goaway(self, last_stream_id: int, code: int = 0) -> None:
        """GOAWAY as a frame of its own, so that h2 goes on here too."""
        payload = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
        await self.send(len(payload).to_bytes(3, "big") + b"\7\0\0\0\0\0" + payload)

    async def send(self, data: bytes) -> None:
        """Bytes that h2 knows nothing of."""
        async with self._turn:
            await self.stream.send_all(data)

    def drop(self) -> None:
        """Reset the connection."""
        sock = self.stream.socket
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: RST
        sock.close()


async def _unimplemented(call: WireCall) -> None:
    await call.only_trailers(12)


@define(eq=False)
class WireEngine:
    """Answers StreamingCalls by `act`, and Control by `control`."""

    act: Act
    control: Act = _unimplemented
    max_streams: int = 1000
    calls: list[WireCall] = field(factory=list)
    peers: list[Peer] = field(factory=list)
    address: Address = field(default=Address(host="127.0.0.1", port=0))

    async def serve(self, stream: trio.SocketStream) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self.max_streams
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        peer = Peer(stream, h2)
        self.peers.append(peer)
        try:
            async with trio.open_nursery() as nursery:
                await peer.flush()
                while data := await stream.receive_some(65536):
                    for event in h2.receive_data(data):
                        await self._on(event, peer, nursery)
                    await peer.flush()
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            for call in self.calls:
                if call.peer is peer:
                    call.ended.set()
            self.peers.remove(peer)

    async def _on(self, event: Any, peer: Peer, nursery: trio.Nursery) -> None:
        if isinstance(event, RequestReceived):
            call = WireCall(peer, event.stream_id)
            path = dict(cast(Any, event.headers))[":path"]
            if path.endswith("/Control"):
                nursery.start_soon(call.play, self.control)
            elif "/grpc.health." in path:
                nursery.start_soon(call.play, _unimplemented)
            else:
                self.calls.append(call)
                nursery.start_soon(call.play, self.act)
        elif isinstance(event, StreamReset):
            for call in self.calls:
                if (call.peer, call.stream_id) == (peer, event.stream_id):
                    call.reset_at, call.reset_code = trio.current_time(), int(event.error_code)
                    call.ended.set()
                    call.scope.cancel()
        elif isinstance(event, WindowUpdated):
            peer.window.set()


@asynccontextmanager
async def open_wire_engine(act: Act, **more: Any) -> AsyncIterator[WireEngine]:
    """Serve it on loopback while the block runs."""
    engine = WireEngine(act, **more)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        engine.address = Address(host="127.0.0.1", port=listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, engine.serve, [listener])  # noqa: ASYNC113 (it listens already)
        yield engine
        nursery.cancel_scope.cancel()
