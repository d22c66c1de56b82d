"""An ASGI exchange in memory: a client that can read, stop reading and leave, without sockets or a server."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import trio
from attrs import define, field

from ark_trio.api.web import Web, build_web
from ark_trio.config import Settings
from ark_trio.relay.gateway import open_gateway


@define(eq=False)
class Exchange:
    """One request and what came back so far."""

    status: int | None = None
    headers: dict[str, str] = field(factory=dict)
    chunks: list[bytes] = field(factory=list)
    complete: bool = False
    _changed: trio.Event = field(factory=trio.Event)
    _to_app: list[dict[str, Any]] = field(factory=list)
    _for_app: trio.Event = field(factory=trio.Event)
    _reading: trio.Event = field(factory=trio.Event)
    _gone: bool = False
    over: trio.Event = field(factory=trio.Event)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def frames(self) -> list[Any]:
        """The data frames: objects, and the string [DONE]."""
        found: list[Any] = []
        for block in self.body.decode().split("\n\n"):
            if block.startswith("data: "):
                data = block.removeprefix("data: ")
                found.append(data if data == "[DONE]" else orjson.loads(data))
        return found

    @property
    def text(self) -> str:
        """The content of all deltas together."""
        return "".join(
            choice["delta"].get("content") or ""
            for frame in self.frames
            if isinstance(frame, dict)
            for choice in frame.get("choices", [])
        )

    def leave(self) -> None:
        """The client closes its connection."""
        self._gone = True
        self._put({"type": "http.disconnect"})

    def stop_reading(self) -> None:
        """Nothing more is taken: the application's next send waits."""
        self._reading = trio.Event()

    def read_on(self) -> None:
        self._reading.set()

    async def wait_for(self, count: int) -> None:
        """Until `count` body chunks have come."""
        while len(self.chunks) < count:
            await self._changed.wait()

    async def wait_for_text(self, content: str) -> None:
        while content not in self.text:
            await self._changed.wait()

    async def receive(self) -> dict[str, Any]:
        while not self._to_app:
            self._for_app = trio.Event()
            await self._for_app.wait()
        return self._to_app.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        await self._reading.wait()
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            if message.get("body"):
                self.chunks.append(bytes(message["body"]))
            if not message.get("more_body", False):
                self.complete = True
                # As hypercorn does: the end of the response is a disconnect too.
                self._put({"type": "http.disconnect"})
        self._changed.set()
        self._changed = trio.Event()

    def _put(self, message: dict[str, Any]) -> None:
        self._to_app.append(message)
        self._for_app.set()


@define(eq=False)
class Client:
    """Sends requests to an application."""

    web: Web
    nursery: trio.Nursery

    def start(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        whole: bool = True,
    ) -> Exchange:
        """Begin a request; it runs in the client's nursery. `whole` False: the body's end never comes."""
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        sent = {
            "host": "test",
            **({"content-type": "application/json"} if raw else {}),
            **(headers or {}),
        }
        exchange = Exchange()
        exchange.read_on()
        exchange._put({"type": "http.request", "body": raw, "more_body": not whole})
        scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
            "extensions": {},
        }
        self.nursery.start_soon(self._run, scope, exchange)
        return exchange

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Exchange:
        """Make a request and wait for its end."""
        exchange = self.start(method, path, body, **more)
        with trio.fail_after(math.inf):
            await exchange.over.wait()
        return exchange

    async def _run(self, scope: dict[str, Any], exchange: Exchange) -> None:
        try:
            await self.web(scope, exchange.receive, exchange.send)
        finally:
            exchange.over.set()
            exchange._changed.set()


@asynccontextmanager
async def open_client(settings: Settings) -> AsyncIterator[Client]:
    """Open a gateway and a client of it in memory."""
    async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
        yield Client(build_web(gateway), nursery)
        nursery.cancel_scope.cancel()
