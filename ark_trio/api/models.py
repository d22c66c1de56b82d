"""GET /v1/models and /v1/models/{id}: what the ready decoders serve and the key may use."""

from quart import Blueprint, Response

from ark_trio.api.access import may_use
from ark_trio.api.connection import exchange
from ark_trio.api.replies import json_reply
from ark_trio.protocol.models import model_list, model_object, unknown_model

blueprint = Blueprint("models", __name__)


@blueprint.get("/models")
@blueprint.get("/v1/models")
async def list_models() -> Response:
    """List them."""
    gateway = exchange.get().gateway
    return json_reply(
        model_list(
            [
                model_object(name, created=gateway.started_at, max_model_len=served.max_model_len)
                for name, served in gateway.fleet.models().items()
                if may_use(name)
            ]
        )
    )


@blueprint.get("/models/<path:model>")
@blueprint.get("/v1/models/<path:model>")
async def retrieve_model(model: str) -> Response:
    """Describe one."""
    gateway = exchange.get().gateway
    usable = {name: served for name, served in gateway.fleet.models().items() if may_use(name)}
    served = usable.get(model)
    if served is None:
        raise unknown_model(model, usable)
    return json_reply(
        model_object(model, created=gateway.started_at, max_model_len=served.max_model_len)
    )
