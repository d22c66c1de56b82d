"""The model list of /v1/models."""

from collections.abc import Iterable
from typing import Any, Final

from ark_trio.errors import UnknownModel

_OWNER: Final = "ark-trio"
_MAX_ECHO: Final = 200


def model_object(
    name: str, *, created: int, max_model_len: int | None = None, owned_by: str = _OWNER
) -> dict[str, Any]:
    """Return one model as OpenAI spells it, with the fields that clients of other servers read beside them.

    `created` is in Unix seconds and must not change from call to call: clients cache by it. `max_model_len` counts
    prompt and answer together, in tokens; None: no decoder says.
    """
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": owned_by,
        "root": name,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [],
    }


def model_list(models: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the list of `model_object`s, in the caller's order, each name once (the first wins)."""
    unique: dict[str, dict[str, Any]] = {}
    for model in models:
        unique.setdefault(model["id"], model)
    return {"object": "list", "data": list(unique.values())}


def unknown_model(name: str, served: Iterable[str]) -> UnknownModel:
    """Return the error for a model that nothing serves; it names what is served."""
    names = ", ".join(sorted(set(served))) or "none"
    return UnknownModel(
        f"The model `{name[:_MAX_ECHO]}` does not exist. Models served here: {names}.",
        param="model",
    )
