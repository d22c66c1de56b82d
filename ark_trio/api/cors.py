"""Calls from web pages of other origins, where the settings allow them. Source: WHATWG Fetch, 3.2."""

from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, length_of

_ANY = "*"
_PREFLIGHT_AGE_S = 600
_METHODS = "GET, POST, DELETE, OPTIONS"
_EXPOSED = ", ".join(
    (
        "x-request-id",
        "retry-after",
        *(
            f"x-ratelimit-{which}-{what}"
            for which in ("limit", "remaining", "reset")
            for what in ("requests", "tokens")
        ),
    )
)
_NO_CONTENT = 204


def answer_preflight(here: Exchange) -> Reply | None:
    """Answer a browser's question whether it may call; None: it is no such question."""
    asked = here.method == "OPTIONS" and b"access-control-request-method" in here.headers
    if not asked or not _allowed_origin(here):
        return None
    reply = Reply(_NO_CONTENT, [], b"")
    reply.tell("access-control-allow-methods", _METHODS)
    wanted = here.headers.get(b"access-control-request-headers")
    reply.tell("access-control-allow-headers", "*" if wanted is None else wanted)
    reply.tell("access-control-max-age", str(_PREFLIGHT_AGE_S))
    reply.headers.append(length_of(b""))
    return reply


def allow_origin(here: Exchange, reply: Reply) -> None:
    """Tell the browser that the page may read the answer, errors too."""
    if not here.gateway.settings.http.cors_origins:
        return
    reply.tell("vary", "origin")
    if origin := _allowed_origin(here):
        reply.tell("access-control-allow-origin", origin)
        reply.tell("access-control-expose-headers", _EXPOSED)


def _allowed_origin(here: Exchange) -> str | None:
    """Return what to allow for the request's origin, if it has one and may call."""
    origins = here.gateway.settings.http.cors_origins
    origin = here.headers.get(b"origin")
    if origin is None:
        return None
    return _ANY if _ANY in origins else origin if origin in origins else None
