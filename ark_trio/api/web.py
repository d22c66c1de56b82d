"""The Quart application: routes, hooks and the root path, put together.

Quart finds the handler of a request by its routing: what there is not, what a route does not allow, what HEAD and OPTIONS
mean, what a path holds, what to make of odd hosts. Plain requests at the routes that take a body, which are nearly all, are
looked up in a table instead, which saves them Quart's request and Werkzeug's match. From there on all go one way (dispatch.py).
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, cast

from quart import Request
from quart_trio import QuartTrio
from werkzeug.routing import MapAdapter

from ark_trio.api import admin, chat, completions, description, health, models, tokenize
from ark_trio.api.access import authenticate
from ark_trio.api.connection import ArkConnection
from ark_trio.api.cors import allow_origin, answer_preflight
from ark_trio.api.dispatch import Dispatch
from ark_trio.api.exchange import Exchange
from ark_trio.api.headers import RequestHeaders
from ark_trio.api.rates import tell_rates
from ark_trio.api.replies import Reply, length_of
from ark_trio.api.routes import Handler, Routes, View
from ark_trio.relay.gateway import Gateway

_NO_CONTENT: Final = 204
_PLAIN_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
"""One of which Werkzeug has nothing to say."""


class Web(QuartTrio):
    """Quart with our connection class, and the gateway that its handlers use."""

    asgi_http_class = ArkConnection

    def __init__(self, gateway: Gateway, dispatch: Dispatch) -> None:
        super().__init__("ark_trio", static_folder=None)
        self.gateway = gateway
        self.dispatch = dispatch
        self._table: dict[tuple[str, str], Handler] = {}
        # Werkzeug would answer these with an HTML redirect.
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False

    def take(self, routes: Routes) -> None:
        """Serve a family's routes."""
        for method, rule, view in routes.table:
            endpoint = f"{view.__module__}.{view.__qualname__}"
            self.add_url_rule(rule, endpoint, cast(Any, view), methods=[method])
            if method == "POST":
                self._table[method, rule] = view

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope, under the root path too, whether or not the proxy in front takes it off."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        root = (self.gateway.settings.http.root_path or "").strip("/")
        if root and scope["path"].startswith(f"/{root}/"):
            scope = {**scope, "path": scope["path"].removeprefix(f"/{root}")}
        await self.asgi_http_class(self, scope)(receive, send)

    def look_up(self, scope: Mapping[str, Any], headers: RequestHeaders) -> Handler | None:
        """Return who answers a request, if it needs no routing. None: `find` knows."""
        handler = self._table.get((scope["method"], scope["path"]))
        if handler is None or scope.get("root_path") or not scope["query_string"].isascii():
            return None
        return handler if _PLAIN_HOST.fullmatch(headers.get(b"host") or "") else None

    def find(self, request: Request) -> Handler:
        """Return what answers a request as Quart's routing says.

        Raises:
            BadHost: its Host header can't be one.
        """
        return partial(
            self._route, request.method, cast(MapAdapter, self.create_url_adapter(request))
        )

    async def _route(self, method: str, adapter: MapAdapter, here: Exchange) -> Reply:
        """Have the route's handler answer.

        Raises:
            HTTPException: there is none.
        """
        rule, holds = adapter.match(return_rule=True)
        if method == "OPTIONS":
            # There is nothing to read in it, least of all HTML.
            reply = Reply(_NO_CONTENT, [], b"")
            reply.tell("allow", ", ".join(adapter.allowed_methods()))
            reply.headers.append(length_of(b""))
            return reply
        return await cast(View, self.view_functions[rule.endpoint])(here, **holds)


def build_web(gateway: Gateway) -> Web:
    """Return the application that serves `gateway`."""
    web = Web(
        gateway,
        Dispatch(
            before=(answer_preflight, authenticate),  # a browser asks without the page's key
            behind=(tell_rates, allow_origin),
        ),
    )
    for part in (chat, completions, tokenize, models, health, description):
        web.take(part.routes)
    if gateway.settings.admin_bind is None:
        web.take(admin.routes)
    return web


def build_admin_web(gateway: Gateway) -> Web:
    """Return the application of the second door, for those who run the gateway."""
    web = Web(gateway, Dispatch(before=(authenticate,)))
    for part in (admin, health):
        web.take(part.routes)
    return web
