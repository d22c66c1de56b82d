"""The whole gateway in one Trio run: our server on a loopback listener, a fake decoder, raw clients, virtual time.

`Stack.settle` waits for the traces of requests to go and `Stack.assert_as_before` compares with the state before them.
"""

import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import structlog
import trio
from attrs import define, field

from ark_trio.config import Settings
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.stream import EndingStream
from ark_trio.relay.gateway import Gateway, open_gateway
from ark_trio.relay.record import Record
from ark_trio.relay.steps import Steps
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.serve import Server
from ark_trio.settings.address import Address
from ark_trio.systemd import open_notifier

LIVE = (Connection, EndingStream, Record, Mailbox, Steps)
"""What a request is made of: none may outlive it."""


@define
class RawClient:
    """A client on a real socket, in Trio."""

    stream: trio.SocketStream
    received: bytearray = field(factory=bytearray)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, marker: bytes, count: int = 1) -> None:
        """Read until `marker` has come `count` times in all.

        Raises:
            EOFError: the server closed first.
        """
        while bytes(self.received).count(marker) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError(bytes(self.received[-500:]))
            self.received += data

    async def read_to_end(self) -> None:
        """Read until the server closes or resets."""
        try:
            while data := await self.stream.receive_some(65536):
                self.received += data
        except trio.BrokenResourceError:
            pass

    def reset(self) -> None:
        """Close by RST."""
        sock = self.stream.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()

    @property
    def status(self) -> int | None:
        """Of the last response."""
        heads = [part for part in bytes(self.received).split(b"\r\n") if part[:9] == b"HTTP/1.1 "]
        finals = [int(head.split()[1]) for head in heads if not head.startswith(b"HTTP/1.1 1")]
        return finals[-1] if finals else None

    @property
    def error(self) -> dict[str, Any] | None:
        """The error of the last response or stream."""
        for line in reversed(bytes(self.received).splitlines()):
            text = line.removeprefix(b"data: ")
            if text.startswith(b'{"error"'):
                found: dict[str, Any] = orjson.loads(text)["error"]
                return found
        return None


@define(eq=False)
class Stack:
    """The gateway, and how it was before the first request."""

    gateway: Gateway
    server: Server
    port: int
    signals: trio.MemorySendChannel[int]
    stopped: trio.Event
    log: list[dict[str, Any]]
    _before: dict[str, Any] = field(factory=dict)

    async def connect(self, *, receive_buffer: int | None = None) -> RawClient:
        """Connect a client."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return RawClient(trio.SocketStream(sock))

    @property
    def ends(self) -> list[dict[str, Any]]:
        """The log lines of ended requests to models."""
        return [e for e in self.log if e["event"] == "request_ended" and e["method"] == "POST"]

    def census(self) -> dict[str, Any]:
        """What there is of everything that a request could leave behind."""
        gc.collect()
        alive = Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, LIVE))
        gateway = self.gateway
        channels = [d._channel for d in gateway.fleet.decoders if d._channel is not None]
        protocols = [protocol for c in channels for protocol in c._grpc.connections]
        return {
            "open calls": len(gateway._open),
            "places": (gateway.admission.running, gateway.admission.waiting),
            "leases": [decoder.in_flight for decoder in gateway.fleet.decoders],
            "gRPC streams": [len(p.processor.streams) for p in protocols],
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            **{kind.__name__: alive[kind.__name__] for kind in LIVE},
        }

    async def remember(self) -> None:
        """Take the state before: a first request has opened what stays open."""
        client = await self.connect()
        await client.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await client.read_to_end()
        await client.stream.aclose()
        await trio.sleep(0.05)
        self._before = self.census()

    async def assert_as_before(self, within_s: float = 0.1) -> None:
        """All traces are gone after `within_s`: tasks, places, leases, streams, sockets, objects."""
        await trio.sleep(within_s)
        after = self.census()
        grown = {
            key: (self._before[key], after[key])
            for key in self._before
            if key in ("tasks", "descriptors") and after[key] > self._before[key]
        }
        changed = {
            key: (self._before[key], after[key])
            for key in self._before
            if key not in ("tasks", "descriptors", "gRPC streams")
            and after[key] != self._before[key]
        }
        assert not grown | changed, grown | changed
        assert not any(after["gRPC streams"])


@asynccontextmanager
async def open_stack(settings: Settings) -> AsyncIterator[Stack]:
    """Serve a gateway on a loopback port while the block runs."""
    log: list[dict[str, Any]] = []
    # What is there already is no request's: not to be looked at again makes a census cheap.
    gc.collect()
    gc.freeze()

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        # An exception would keep the frames that it passed, and all that they hold.
        log.append({key: value for key, value in event.items() if key != "exc_info"})
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    send, receive = trio.open_memory_channel[int](8)
    try:
        async with AsyncExitStack() as exits:
            notifier = exits.enter_context(open_notifier({}))
            gateway = await exits.enter_async_context(open_gateway(settings))
            nursery = await exits.enter_async_context(trio.open_nursery())
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            listener.setblocking(False)
            server = Server(gateway=gateway, reload=lambda: settings, notifier=notifier)
            stack = Stack(gateway, server, listener.getsockname()[1], send, trio.Event(), log)
            nursery.start_soon(server.heed, receive)
            nursery.start_soon(_run, server, listener, stack.stopped)
            await stack.remember()
            yield stack
            nursery.cancel_scope.cancel()
    finally:
        structlog.reset_defaults()
        gc.unfreeze()


async def _run(server: Server, listener: socket.socket, stopped: trio.Event) -> None:
    await server.run(listener)
    stopped.set()


def deaf_address() -> tuple[Address, list[socket.socket]]:
    """An address where connecting hangs, and the sockets that keep it so."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    crowd = [listener]
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        crowd.append(sock)
    return Address(host="127.0.0.1", port=listener.getsockname()[1]), crowd
