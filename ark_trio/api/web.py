"""The Quart application: routes, error replies and limits, put together."""

from contextlib import nullcontext
from typing import Any, Final, cast

from quart import Request, Response
from quart_trio.wrappers import TrioRequest
from werkzeug.exceptions import BadHost, HTTPException

from ark_trio.api import admin, chat, completions, description, health, models, tokenize
from ark_trio.api.access import authenticate
from ark_trio.api.connection import ArkConnection
from ark_trio.api.cors import allow_origin, answer_preflight
from ark_trio.api.dispatch import LeanQuart
from ark_trio.api.rates import tell_rates
from ark_trio.api.replies import reply_to_ark_error, reply_to_http_exception
from ark_trio.config import Settings
from ark_trio.errors import ArkError, InvalidRequest
from ark_trio.relay.gateway import Gateway

_NO_CONTENT: Final = 204


class ApiRequest(TrioRequest):
    """Quart's, without what nobody here uses: forms, which are parsed under a lock, and blueprints' own hooks."""

    lock_class = nullcontext  # type: ignore[assignment]

    @property
    def blueprints(self) -> list[str]:
        """None: hooks are the application's. Quart asks four times a request."""
        return []


class Web(LeanQuart):
    """Quart with our connection class, and the gateway that its handlers use."""

    asgi_http_class = ArkConnection
    request_class = ApiRequest
    gateway: Gateway

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope, under the root path too, whether or not the proxy in front takes it off."""
        root = (self.gateway.settings.http.root_path or "").strip("/")
        if root and scope["type"] == "http" and scope["path"].startswith(f"/{root}/"):
            scope = {**scope, "path": scope["path"].removeprefix(f"/{root}")}
        await super().__call__(scope, receive, send)

    async def handle_request(self, request: Request) -> Response:
        """Answer a request. Werkzeug reads the Host header, which routes don't heed, before any error has a handler."""
        try:
            return cast(Response, await super().handle_request(request))
        except BadHost:
            return await reply_to_ark_error(InvalidRequest("The Host header is malformed."))

    async def make_default_options_response(self) -> Response:
        """Answer OPTIONS: there is nothing to read in it, least of all HTML."""
        response = await super().make_default_options_response()
        response.status_code = _NO_CONTENT
        del response.headers["content-type"]
        return response


def build_web(gateway: Gateway) -> Web:
    """Return the application that serves `gateway`."""
    web = _plain_web(gateway)
    for part in (chat, completions, tokenize, models, health, description):
        web.register_blueprint(part.blueprint)
    if gateway.settings.admin_bind is None:
        web.register_blueprint(admin.blueprint)
    web.before_request(answer_preflight)  # a browser asks it without the page's key
    web.before_request(authenticate)
    web.after_request(allow_origin)
    web.after_request(tell_rates)
    _set_error_replies(web)
    return web


def build_admin_web(gateway: Gateway) -> Web:
    """Return the application of the second door, for those who run the gateway."""
    web = _plain_web(gateway)
    for part in (admin, health):
        web.register_blueprint(part.blueprint)
    web.before_request(authenticate)
    _set_error_replies(web)
    return web


def _plain_web(gateway: Gateway) -> Web:
    web = Web("ark_trio", static_folder=None)
    web.gateway = gateway
    _set_limits(web, gateway.settings)
    # Werkzeug would answer these with an HTML redirect.
    web.url_map.strict_slashes = False
    web.url_map.merge_slashes = False
    return web


def _set_error_replies(web: Web) -> None:
    web.register_error_handler(ArkError, reply_to_ark_error)
    web.register_error_handler(HTTPException, reply_to_http_exception)


def _set_limits(web: Web, settings: Settings) -> None:
    web.config["MAX_CONTENT_LENGTH"] = settings.limits.max_body_bytes
    web.config["BODY_TIMEOUT"] = settings.limits.body_s
    web.config["RESPONSE_TIMEOUT"] = None
    web.config["PROPAGATE_EXCEPTIONS"] = False
