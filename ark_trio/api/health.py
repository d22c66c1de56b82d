"""Health and version: does the process live, and can it serve?"""

import ark_trio
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, json_reply
from ark_trio.api.routes import Routes

routes = Routes()

NOT_READY = 503


@routes.get("/livez", "/health")
async def tell_life(_: Exchange) -> Reply:
    """The process lives."""
    return json_reply({"status": "ok"})


@routes.get("/readyz")
async def tell_readiness(here: Exchange) -> Reply:
    """200 with a ready decoder and no drain, else 503; the body says which."""
    gateway = here.gateway
    if gateway.leaving:
        return json_reply({"status": "draining"}, NOT_READY)
    if not gateway.fleet.ready:
        return json_reply({"status": "no decoder is ready"}, NOT_READY)
    return json_reply({"status": "ok"})


@routes.get("/version")
async def tell_version(_: Exchange) -> Reply:
    """The gateway's version."""
    return json_reply({"version": ark_trio.__version__})
