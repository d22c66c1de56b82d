"""Whose request is this? Asked before anything else of it is looked at; without a file of keys anybody may ask."""

from functools import partial
from typing import Final

from ark_trio.access.key import Key
from ark_trio.access.keyring import KeyRing
from ark_trio.api.exchange import Exchange
from ark_trio.errors import ArkError, NotAuthenticated, PermissionDenied, UnknownModel
from ark_trio.protocol.models import unknown_model

EXEMPT: Final = frozenset({"/livez", "/readyz", "/health"})
"""For load balancers and service managers, which have no key."""
OPERATORS: Final = frozenset({"/metrics", "/admin/status"})
"""For those who run the gateway; without a key it depends on where they call from (api/admin.py)."""
_SCHEME: Final = "bearer"
_HOW: Final = "Send your API key as a header: `Authorization: Bearer YOUR_KEY`."


def authenticate(here: Exchange) -> None:
    """Note whose request it is.

    Raises:
        NotAuthenticated: no key, or one that is not or no longer known.
    """
    ring = here.gateway.keyring
    if ring is None or here.path in EXEMPT:
        return
    authorization = here.headers.getlist(b"authorization")
    if not authorization and here.path in OPERATORS:
        return
    here.key = identify(ring, authorization)
    here.record.key = here.key.name


def identify(ring: KeyRing, authorization: list[str]) -> Key:
    """Return whom the values of a request's Authorization headers stand for. Source: RFC 6750, 2.1.

    Raises:
        NotAuthenticated: nobody.
    """
    if len(authorization) != 1:
        what = "There is more than one API key." if authorization else "There is no API key."
        raise NotAuthenticated(f"{what} {_HOW}")
    scheme, _, secret = authorization[0].strip().partition(" ")
    if scheme.lower() != _SCHEME or not secret.strip():
        raise NotAuthenticated(f"There is no API key in the Authorization header. {_HOW}")
    key = ring.find(secret.strip())
    if key is None:
        raise NotAuthenticated("This API key is not known here.")
    if key.expired():
        raise NotAuthenticated("This API key has expired.")
    return key


def may_use(here: Exchange, model: str) -> bool:
    """Whether the request's key is for this model."""
    return here.key is None or here.key.may_use(model)


def require_model(here: Exchange, model: str) -> None:
    """Refuse a model that the request's key is not for, whether or not it is served.

    Raises:
        PermissionDenied: it is not.
    """
    if not may_use(here, model):
        raise PermissionDenied(
            f"This API key may not use the model `{model[:_MAX_ECHO]}`.",
            param="model",
            code="model_not_allowed",
        )


def is_batch(here: Exchange) -> bool:
    """Whether the request's key is one for work that can wait."""
    return here.key is not None and here.key.priority == "batch"


def as_told(here: Exchange, error: ArkError) -> ArkError:
    """Return an error as the request's key may hear it: of models it is told only those that it may use."""
    restricted = here.key is not None and here.key.models is not None
    if not (restricted and isinstance(error, UnknownModel) and here.record.model):
        return error
    return unknown_model(
        here.record.model, filter(partial(may_use, here), here.gateway.fleet.models())
    )


_MAX_ECHO: Final = 200
