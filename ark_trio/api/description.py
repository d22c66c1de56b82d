"""GET /openapi.json and /docs: the API's description, for machines and for people, without anything from elsewhere."""

from functools import cache

from quart import Blueprint, Response

import ark_trio
from ark_trio.api.replies import json_reply
from ark_trio.protocol.openapi import describe
from ark_trio.protocol.reference import reference_page

blueprint = Blueprint("description", __name__)


@blueprint.get("/openapi.json")
@blueprint.get("/v1/openapi.json")
async def tell_description() -> Response:
    """The description in OpenAPI 3.1."""
    return json_reply(_description())


@blueprint.get("/docs")
async def show_reference() -> Response:
    """The reference as a page."""
    return Response(_page(), content_type="text/html; charset=utf-8")


@cache
def _description() -> dict[str, object]:
    return describe(ark_trio.__version__)


@cache
def _page() -> str:
    return reference_page(ark_trio.__version__)
