"""One HTTP request: its nursery, its record, and what a disconnect means.

Source: quart-trio 0.12's `TrioASGIHTTPConnection`, which opens one nursery a request with a task that watches for the
client's disconnect and one that handles the request; whichever ends first ends the other. Here the nursery is also open to
the handler, which starts the backend call in it.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, cast

import trio
from quart import Request
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import BadHost

from ark_trio.api.arrival import Body
from ark_trio.api.beginning import open_record
from ark_trio.api.body import announced_bytes
from ark_trio.api.dispatch import Dispatch
from ark_trio.api.exchange import Exchange
from ark_trio.api.headers import RequestHeaders
from ark_trio.api.replies import Reply, reply_to_ark_error
from ark_trio.api.routes import Handler
from ark_trio.errors import InvalidRequest, Unavailable
from ark_trio.hyper.fate import CLIENT_STALLED, outcome_of
from ark_trio.hyper.inbox import inbox_of
from ark_trio.hyper.outlet import outlet_of
from ark_trio.relay.answer import LastPiece
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.record import CLIENT_GONE, COMPLETED
from ark_trio.relay.tab import SETTLE_S, Tab


class _Web(Protocol):
    gateway: Gateway
    dispatch: Dispatch

    def look_up(self, scope: Mapping[str, Any], headers: RequestHeaders) -> Handler | None: ...

    def find(self, request: Request) -> Handler: ...


class ArkConnection(TrioASGIHTTPConnection):
    """Serves one request; see the module's docstring."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve it. Returns when every task of the request has ended."""
        self._ending = False
        self._gateway = gateway = cast(_Web, self.app).gateway
        self._record = record = open_record(self.scope, gateway)
        # No context managers made of generators: a stream would keep their frames, half a kilobyte each.
        self._share, tab = gateway.bodies.share(), Tab(gateway.store)
        gateway.book.begin(record)
        try:
            async with trio.open_nursery() as nursery:
                await self._answer(nursery, tab, receive, send)
        finally:
            self._share.close()
            try:
                if tab.verdict is not None:  # else nothing was set aside
                    with trio.move_on_after(SETTLE_S, shield=True):
                        await tab.settle(record)
            finally:
                gateway.book.end(record)

    async def _answer(self, nursery: trio.Nursery, tab: Tab, receive: Any, send: Any) -> None:
        """Answer, with no limit on how long that takes: Quart's own would cut a stream after 60 s without a word."""
        if self.scope["http_version"] == "2":
            send = self._bounded(send, nursery)
        await self._send_reply(send, await self._handle(nursery, tab, receive, send))
        self._record.end(COMPLETED)
        nursery.cancel_scope.cancel()

    async def _handle(self, nursery: trio.Nursery, tab: Tab, receive: Any, send: Any) -> Reply:
        """Have the request handled. The exchange is no one else's, so a stream does not keep it, with headers and body."""
        web, scope = cast(_Web, self.app), self.scope
        headers = RequestHeaders(scope["headers"])
        handler = web.look_up(scope, headers)
        request = self._create_request_from_scope(send) if handler is None else None
        here = Exchange(
            nursery=nursery,
            record=self._record,
            gateway=self._gateway,
            tab=tab,
            scope=scope,
            method=scope["method"] if request is None else request.method,
            path=scope["path"] if request is None else request.path,
            headers=headers,
            body=Body(announced_bytes(headers), self._gateway.settings.limits.max_body_bytes),
            outlet=outlet_of(scope),
        )
        self._body: Body | None = here.body
        hear = partial(self._hear, nursery.cancel_scope)
        inbox = inbox_of(scope)
        if inbox is not None:
            inbox.hand_to(hear)
        else:
            nursery.start_soon(_listen, receive, hear)
        if request is not None:
            try:
                handler = web.find(request)
            except BadHost:
                # Werkzeug reads the Host header, which routes don't heed, before there is a word for any error.
                return reply_to_ark_error(here, InvalidRequest("The Host header is malformed."))
        return await web.dispatch.answer(here, cast(Handler, handler))

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
            body.feed(data)
        else:
            text = "There is no room for this body beside those of others. Try again shortly."
            body.fail(Unavailable(text, code="bodies_limit"))
        if not message.get("more_body", False):
            body.end()
            self._body = None  # it is the handler's now

    async def _send_reply(self, send: Any, reply: Reply) -> None:
        """Send a reply. A piece that is known to be the last says so, and no empty one follows."""
        self._share.close()  # whatever the body was for has been done
        self._record.status = status = reply.status
        headers = [*reply.headers, (b"x-request-id", self._record.request_id.encode())]
        body = reply.body
        del reply  # a stream may last for minutes
        await send({"type": "http.response.start", "status": status, "headers": headers})
        del headers
        if isinstance(body, bytes):
            await send(self._piece(body, last=True))
            return
        async with aclosing(body) as pieces:
            async for piece in pieces:
                last = isinstance(piece, LastPiece)
                await send(self._piece(piece, last=last))
                if last:
                    return
                del piece
        await send(self._piece(b"", last=True))

    def _piece(self, data: bytes, *, last: bool) -> dict[str, Any]:
        """Return what says a piece of the answer's body, and note that it goes out."""
        record = self._record
        if last:
            self._ending = True
        if record.answered is None and record.first_token is not None:
            record.answered = trio.current_time()
        return {"type": "http.response.body", "body": data, "more_body": not last}

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


async def _listen(receive: Any, hear: Callable[[Mapping[str, Any]], None]) -> None:
    """Hear what the client sends from a server that has no inbox of ours, until it has left."""
    while True:
        message = await receive()
        hear(message)
        if message["type"] == "http.disconnect":
            return
