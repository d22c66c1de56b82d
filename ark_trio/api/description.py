"""GET /openapi.json and /docs: the API's description, for machines and for people, without anything from elsewhere."""

from functools import cache

import ark_trio
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, json_reply, length_of
from ark_trio.api.routes import Routes
from ark_trio.protocol.openapi import describe
from ark_trio.protocol.reference import reference_page

routes = Routes()

_HTML = (b"content-type", b"text/html; charset=utf-8")


@routes.get("/openapi.json", "/v1/openapi.json")
async def tell_description(_: Exchange) -> Reply:
    """The description in OpenAPI 3.1."""
    return json_reply(_description())


@routes.get("/docs")
async def show_reference(_: Exchange) -> Reply:
    """The reference as a page."""
    page = _page()
    return Reply(200, [_HTML, length_of(page)], page)


@cache
def _description() -> dict[str, object]:
    return describe(ark_trio.__version__)


@cache
def _page() -> bytes:
    return reference_page(ark_trio.__version__).encode()
