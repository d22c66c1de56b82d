"""Calls from web pages of other origins, where the settings allow them. Source: WHATWG Fetch, 3.2."""

from quart import Response, request

from ark_trio.api.connection import exchange

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


async def answer_preflight() -> Response | None:
    """Answer a browser's question whether it may call; None: it is no such question."""
    asked = "access-control-request-method" in request.headers
    if request.method != "OPTIONS" or not asked or not _allowed_origin():
        return None
    headers = {
        "access-control-allow-methods": _METHODS,
        "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
        "access-control-max-age": str(_PREFLIGHT_AGE_S),
    }
    response = Response(b"", status=_NO_CONTENT, headers=headers)
    del response.headers["content-type"]
    return response


async def allow_origin(response: Response) -> Response:
    """Tell the browser that the page may read the answer, errors too."""
    origins = exchange.get().gateway.settings.http.cors_origins
    if not origins:
        return response
    response.headers.add("vary", "origin")
    if origin := _allowed_origin():
        response.headers["access-control-allow-origin"] = origin
        response.headers["access-control-expose-headers"] = _EXPOSED
    return response


def _allowed_origin() -> str | None:
    """Return what to allow for the request's origin, if it has one and may call."""
    origins = exchange.get().gateway.settings.http.cors_origins
    origin = request.headers.get("origin")
    if origin is None:
        return None
    return _ANY if _ANY in origins else origin if origin in origins else None
