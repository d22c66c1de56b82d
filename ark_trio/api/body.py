"""The request body: JSON, whole, within the limits that Quart enforces for us."""

import trio
from quart import request

from ark_trio.api.connection import exchange
from ark_trio.errors import InvalidRequest, UnsupportedMediaType

LOGGED_BYTES = 16 << 10
"""What the log keeps of a body, where the settings want it there."""


async def read_json_body() -> bytes:
    """Return the body's bytes.

    Raises:
        InvalidRequest: the client says that it is something else than JSON.
        UnsupportedMediaType: it is compressed: a few bytes could become any number.
        HTTPException: 413 over the size limit, 408 when it does not arrive in time.
    """
    if request.content_length != 0 and request.mimetype not in ("", "application/json"):
        raise InvalidRequest("Content-Type must be application/json.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("A body must not be compressed.", param="Content-Encoding")
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    here = exchange.get()
    here.record.taken = trio.current_time()
    if here.gateway.settings.log.prompts:
        here.record.body = body[:LOGGED_BYTES].decode(errors="replace")
    return body


def max_depth() -> int:
    """How deep JSON may be nested."""
    return exchange.get().gateway.settings.limits.max_json_depth
