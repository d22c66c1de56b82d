"""The short way to a client's socket, past ASGI's events, for the requests that may use it."""

from collections.abc import Mapping
from typing import Any

from ark_trio.relay.push import Outlet

KEY = "ark.outlet"
"""Of the connection's `Outlet` in each request's `scope["state"]`."""


def outlet_of(scope: Mapping[str, Any]) -> Outlet | None:
    """Return the short way for the answer to this request: over HTTP/1.1, where a piece is a chunk, and without TLS."""
    if scope["http_version"] != "1.1" or scope["method"] == "HEAD":
        return None
    outlet: Outlet | None = (scope.get("state") or {}).get(KEY)
    return outlet
