"""Health and version: does the process live, and can it serve?"""

from quart import Blueprint, Response

import ark_trio
from ark_trio.api.connection import exchange
from ark_trio.api.replies import json_reply

blueprint = Blueprint("health", __name__)

NOT_READY = 503


@blueprint.get("/livez")
@blueprint.get("/health")
async def tell_life() -> Response:
    """The process lives."""
    return json_reply({"status": "ok"})


@blueprint.get("/readyz")
async def tell_readiness() -> Response:
    """200 with a ready decoder and no drain, else 503; the body says which."""
    gateway = exchange.get().gateway
    if gateway.leaving:
        return json_reply({"status": "draining"}, NOT_READY)
    if not gateway.fleet.ready:
        return json_reply({"status": "no decoder is ready"}, NOT_READY)
    return json_reply({"status": "ok"})


@blueprint.get("/version")
async def tell_version() -> Response:
    """The gateway's version."""
    return json_reply({"version": ark_trio.__version__})
