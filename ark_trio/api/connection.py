"""One HTTP request: its nursery, its record, and what a disconnect means.

Source: quart-trio 0.12's `TrioASGIHTTPConnection`, which opens one nursery a request with a task that watches for the
client's disconnect and one that handles the request; whichever ends first ends the other. Here the nursery is also open to
the handler, which starts the backend call in it.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Protocol, cast

import trio
from attrs import frozen
from quart.utils import encode_headers
from quart.wrappers import Response
from quart.wrappers.request import Body
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from ark_trio.access.key import Key
from ark_trio.errors import Unavailable
from ark_trio.hyper.fate import CLIENT_STALLED, outcome_of
from ark_trio.hyper.inbox import inbox_of
from ark_trio.hyper.outlet import outlet_of
from ark_trio.ids import new_id
from ark_trio.relay.answer import LastPiece
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.push import Outlet
from ark_trio.relay.record import CLIENT_GONE, COMPLETED, Record
from ark_trio.relay.tab import SETTLE_S, Tab

_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")


@frozen(kw_only=True)
class Exchange:
    """What a handler may use of the request it serves."""

    nursery: trio.Nursery
    """Ends with the request, however it ends."""
    context: Context
    """As it was before the request."""
    record: Record
    gateway: Gateway
    tab: Tab
    outlet: Outlet | None = None
    """The short way to the client, if there is one."""
    key: Key | None = None
    """Whose request it is; None: nobody has been asked to say."""
    large: bool = False
    """Its body is large: what is done with all of it is done in a thread."""
    names: Callable[[], Mapping[str, str]] = dict
    """Tells what the caller calls the engine's inputs, where it is not the same."""

    def start(self, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task in the nursery. It does not get Quart's context, which would keep request and body for its whole life."""
        self.context.run(self.nursery.start_soon, run, *args)


exchange: ContextVar[Exchange] = ContextVar("exchange")


class _HasGateway(Protocol):
    gateway: Gateway


class ArkConnection(TrioASGIHTTPConnection):
    """Serves one request; see the module's docstring."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve it. Returns when every task of the request has ended."""
        context = copy_context()
        self._ending = False
        self._gateway = gateway = cast(_HasGateway, self.app).gateway
        record = Record(
            request_id=request_id(self.scope["headers"]),
            method=self.scope["method"],
            path=self.scope["path"],
            client=client_address(self.scope) if gateway.settings.log.addresses else None,
            tally=gateway.book.tally,
            models=gateway.book.models,
        )
        self._record = record
        send = self._recording(send)
        # No context managers made of generators: a stream would keep their frames, half a kilobyte each.
        self._share, tab = gateway.bodies.share(), Tab(gateway.store)
        gateway.book.begin(record)
        try:
            async with trio.open_nursery() as nursery:
                exchange.set(
                    Exchange(
                        nursery=nursery,
                        context=context,
                        record=record,
                        gateway=gateway,
                        tab=tab,
                        outlet=outlet_of(self.scope),
                    )
                )
                await self._answer(nursery, receive, send)
        finally:
            self._share.close()
            try:
                with trio.move_on_after(SETTLE_S, shield=True):
                    await tab.settle(record)
            finally:
                gateway.book.end(record)

    async def _answer(self, nursery: trio.Nursery, receive: Any, send: Any) -> None:
        """Answer, with no limit on how long that takes: Quart's own would cut a stream after 60 s without a word."""
        if self.scope["http_version"] == "2":
            send = self._bounded(send, nursery)
        await self._send_response(send, await self._handle(nursery, receive, send))
        self._record.end(COMPLETED)
        nursery.cancel_scope.cancel()

    async def _handle(self, nursery: trio.Nursery, receive: Any, send: Any) -> Any:
        """Have the request handled. It is no one else's, so a stream does not keep it, with its headers and its body."""
        request = self._create_request_from_scope(send)
        self._body: Body | None = request.body
        hear = partial(self._hear, nursery.cancel_scope)
        inbox = inbox_of(self.scope)
        if inbox is not None:
            inbox.hand_to(hear)
        else:
            nursery.start_soon(_listen, receive, hear)
        return await self.app.handle_request(request)

    def _hear(self, scope: trio.CancelScope, message: Mapping[str, Any]) -> None:
        """Take what the client sends: its body, and that it has left, which ends the request.

        hypercorn says `http.disconnect` after a complete response too, while its closing code still runs in the handler's
        task: cancelling then would leave the socket of a `Connection: close` open for ever.
        """
        if message["type"] == "http.request":
            self._collect(message)
        elif not self._ending:
            self._record.end_left(outcome_of(self.scope) or CLIENT_GONE)
            scope.cancel()

    def _collect(self, message: Mapping[str, Any]) -> None:
        """Collect a piece of the body, if there is room for it."""
        body, data = self._body, message.get("body", b"")
        if body is None:
            return
        if self._share.take(len(data), self._gateway.settings.limits.max_bodies_bytes):
            body.append(data)
        else:
            text = "There is no room for this body beside those of others. Try again shortly."
            body._must_raise = Unavailable(text, code="bodies_limit")  # noqa: SLF001 (as Quart does for a 413)
            body.clear()
            body.set_complete()
        if not message.get("more_body", False):
            body.set_complete()
            self._body = None  # it is the handler's now

    async def _send_response(self, send: Any, response: Any) -> None:
        """Send an answer, as Quart does; but a piece that is known to be the last says so, and no empty one follows."""
        if not isinstance(response, Response):
            await super()._send_response(send, response)
            return
        await send(_start_of(response))
        body = response.response
        del response  # a stream may last for minutes
        whole = isinstance(body, DataBody)
        async with body as pieces:
            async for piece in pieces:
                last = whole or isinstance(piece, LastPiece)
                await send({"type": "http.response.body", "body": piece, "more_body": not last})
                if last:
                    return
                del piece
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _bounded(self, send: Any, nursery: trio.Nursery) -> Any:
        """Give an HTTP/2 client up that takes nothing of this stream, while its connection may be well.

        Under HTTP/1 a stream is a connection, and that has its own deadline.
        """
        stalled_s = self._gateway.settings.limits.stalled_write_s

        async def send_bounded(message: dict[str, Any]) -> None:
            with trio.move_on_after(stalled_s):
                await send(message)
                return
            self._record.end_left(CLIENT_STALLED)
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

        return send_bounded

    def _recording(self, send: Any) -> Any:
        record = self._record

        async def send_recorded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._share.close()  # whatever the body was for has been done
                record.status = message["status"]
                message["headers"].append((b"x-request-id", record.request_id.encode()))
            else:
                if not message.get("more_body", False):
                    self._ending = True
                if record.answered is None and record.first_token is not None:
                    record.answered = trio.current_time()
            await send(message)

        return send_recorded


async def _listen(receive: Any, hear: Callable[[Mapping[str, Any]], None]) -> None:
    """Hear what the client sends from a server that has no inbox of ours, until it has left."""
    while True:
        message = await receive()
        hear(message)
        if message["type"] == "http.disconnect":
            return


def _start_of(response: Response) -> dict[str, Any]:
    headers = encode_headers(response.headers)
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


def client_address(scope: Mapping[str, Any]) -> str:
    """Return where the connection comes from; a unix socket's other end has no address."""
    client = scope.get("client")
    return str(client[0]) if client else "unix"


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's own x-request-id if it is sane, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return value.decode("ascii")
    return new_id()
