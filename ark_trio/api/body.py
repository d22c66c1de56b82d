"""The request body: JSON, whole, within the limits that Quart enforces for us."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio
from attrs import evolve
from quart import request
from quart.wrappers.request import Body

from ark_trio.api.connection import exchange
from ark_trio.errors import InvalidRequest, UnsupportedMediaType
from ark_trio.protocol.json_bounds import has_more_values

T = TypeVar("T")

SMALL_BYTES: Final = 64 << 10
"""Up to this a body is parsed where it was read, in well under 10 ms. A larger one may take a second, in a thread."""
LOGGED_BYTES = 16 << 10
"""What the log keeps of a body, where the settings want it there."""


async def read_json(parse: Callable[[bytes, int], T]) -> T:
    """Return what `parse` makes of the request's body; its second argument is how deep JSON may be nested.

    Raises:
        Overloaded: there is no place for it, so it need not be parsed.
        InvalidRequest: it holds more than the limits allow, or what `parse` says of it.
        ArkError, HTTPException: see `_read_body`.
    """
    body = await _read_body()
    here = exchange.get()
    here.gateway.admission.require_hope(here.record.key or "")
    limits = here.gateway.settings.limits
    work = partial(_parse, body, limits.max_json_values, parse, limits.max_json_depth)
    if len(body) <= SMALL_BYTES:
        return work()
    exchange.set(evolve(here, large=True))
    return await trio.to_thread.run_sync(work, limiter=here.gateway.aside)


def _parse(body: bytes, max_values: int, parse: Callable[[bytes, int], T], max_depth: int) -> T:
    if has_more_values(body, max_values):
        raise InvalidRequest(f"The body holds more than {max_values} values.")
    return parse(body, max_depth)


async def _read_body() -> bytes:
    """Return the body's bytes.

    Raises:
        InvalidRequest: the client says that it is something else than JSON.
        UnsupportedMediaType: it is compressed: a few bytes could become any number.
        HTTPException: 413 over the size limit, 408 when it does not arrive in time.
        ShuttingDown: the gateway ends first.
    """
    if request.content_length != 0 and request.mimetype not in ("", "application/json"):
        raise InvalidRequest("Content-Type must be application/json.")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("A body must not be compressed.", param="Content-Encoding")
    body = _arrived(request.body)
    here = exchange.get()
    if body is None:
        with here.gateway.arriving():
            body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    here.record.taken = trio.current_time()
    if here.gateway.settings.log.prompts:
        here.record.body = body[:LOGGED_BYTES].decode(errors="replace")
    return body


def _arrived(body: Body) -> bytes | None:
    """Return a body that is there in full already, as most are, without a timer and a turn of the loop: 40 µs.

    Raises:
        HTTPException: as `Request.get_data`.
    """
    if not body._complete.is_set():  # noqa: SLF001 (Quart has no way to ask)
        return None
    if body._must_raise is not None:  # noqa: SLF001
        raise body._must_raise  # noqa: SLF001
    data = bytes(body._data)  # noqa: SLF001
    body.clear()
    return data
