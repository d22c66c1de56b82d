"""GET /v1/models and /v1/models/{id}: what the ready decoders serve and the key may use."""

from ark_trio.api.access import may_use
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, json_reply
from ark_trio.api.routes import Routes
from ark_trio.protocol.models import model_list, model_object, unknown_model

routes = Routes()


@routes.get("/models", "/v1/models")
async def list_models(here: Exchange) -> Reply:
    """List them."""
    gateway = here.gateway
    return json_reply(
        model_list(
            [
                model_object(name, created=gateway.started_at, max_model_len=served.max_model_len)
                for name, served in gateway.fleet.models().items()
                if may_use(here, name)
            ]
        )
    )


@routes.get("/models/<path:model>", "/v1/models/<path:model>")
async def retrieve_model(here: Exchange, model: str) -> Reply:
    """Describe one."""
    gateway = here.gateway
    usable = {
        name: served for name, served in gateway.fleet.models().items() if may_use(here, name)
    }
    served = usable.get(model)
    if served is None:
        raise unknown_model(model, usable)
    return json_reply(
        model_object(model, created=gateway.started_at, max_model_len=served.max_model_len)
    )
