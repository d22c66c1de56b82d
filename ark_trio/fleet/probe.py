"""A look at a decoder: is it well, and what does it serve?

It is asked what its own contract offers first: HealthCheck and GetStatus by Control, else gRPC's health service. Engines may
know none of them: then that it takes a connection has to do.
"""

from typing import Any

import structlog
from attrs import frozen

from ark_trio.errors import ArkError, NotImplementedByEngine
from ark_trio.rpc.client import ArkChannel
from ark_wire.inference import ControlType

log = structlog.get_logger()


@frozen(kw_only=True)
class Served:
    """What a decoder says that it serves."""

    models: tuple[str, ...]
    max_model_len: int | None = None
    """Tokens of prompt and answer together; None: it doesn't say."""


async def look(channel: ArkChannel, where: str, default_models: tuple[str, ...]) -> Served | None:
    """Return what a decoder serves, or None when it is not well. The caller bounds the time; `where` is for the log."""
    try:
        if not await _healthy(channel, where):
            return None
        try:
            status = await channel.control(ControlType.GetStatus)
        except NotImplementedByEngine:
            return Served(models=default_models)
        return parse_served(status, default_models)
    except ArkError as error:
        log.debug("decoder_look_failed", decoder=where, reason=error.message)
    except Exception:
        # Whatever one decoder says, the others go on being watched and the gateway lives.
        log.exception("decoder_look_crashed", decoder=where)
    return None


async def _healthy(channel: ArkChannel, where: str) -> bool:
    try:
        said = (await channel.control(ControlType.HealthCheck)).get("status", "ok")
    except NotImplementedByEngine:
        pass
    else:
        if said != "ok":
            log.debug("decoder_unwell", decoder=where, reason=str(said)[:200])
        return bool(said == "ok")
    try:
        return await channel.serving()
    except NotImplementedByEngine:
        return True


def parse_served(status: dict[str, Any], default_models: tuple[str, ...]) -> Served | None:
    """Read a GetStatus answer. None: it says that it is not a decoder, so no request may go there."""
    if status.get("role", "decoder") != "decoder":
        return None
    models, length = status.get("models"), status.get("max_model_len")
    return Served(
        models=tuple(str(name) for name in models)
        if isinstance(models, list) and models
        else default_models,
        max_model_len=length if isinstance(length, int) and length > 0 else None,
    )
