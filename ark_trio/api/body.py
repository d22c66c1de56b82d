"""The request body: JSON, whole, within the limits."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio
from werkzeug.http import parse_options_header
from werkzeug.sansio.utils import get_content_length

from ark_trio.api.exchange import Exchange
from ark_trio.api.headers import RequestHeaders
from ark_trio.errors import InvalidRequest, RequestTimeout, UnsupportedMediaType
from ark_trio.protocol.json_bounds import has_more_values

T = TypeVar("T")

SMALL_BYTES: Final = 64 << 10
"""Up to this a body is parsed where it was read, in well under 10 ms. A larger one may take a second, in a thread."""
LOGGED_BYTES = 16 << 10
"""What the log keeps of a body, where the settings want it there."""
_JSON: Final = "application/json"


def announced_bytes(headers: RequestHeaders) -> int | None:
    """Return how many bytes a request says that its body has; None: it does not say."""
    return get_content_length(headers.get(b"content-length"), headers.get(b"transfer-encoding"))


async def read_json(here: Exchange, parse: Callable[[bytes, int], T]) -> T:
    """Return what `parse` makes of the request's body; its second argument is how deep JSON may be nested.

    Raises:
        Overloaded: there is no place for it, so it need not be parsed.
        InvalidRequest: it holds more than the limits allow, or what `parse` says of it.
        ArkError: see `_read_body`.
    """
    body = await _read_body(here)
    here.gateway.admission.require_hope(here.record.key or "")
    limits = here.gateway.settings.limits
    if len(body) <= SMALL_BYTES:
        return _parse(body, limits.max_json_values, parse, limits.max_json_depth)
    here.large = True
    work = partial(_parse, body, limits.max_json_values, parse, limits.max_json_depth)
    return await trio.to_thread.run_sync(work, limiter=here.gateway.aside)


def _parse(body: bytes, max_values: int, parse: Callable[[bytes, int], T], max_depth: int) -> T:
    if has_more_values(body, max_values):
        raise InvalidRequest(f"The body holds more than {max_values} values.")
    return parse(body, max_depth)


async def _read_body(here: Exchange) -> bytes:
    """Return the body's bytes.

    Raises:
        InvalidRequest: the client says that it is something else than JSON.
        UnsupportedMediaType: it is compressed: a few bytes could become any number.
        BodyTooLarge: it is over the limit.
        RequestTimeout: it does not arrive in time.
        Unavailable: there is no room for it.
        ShuttingDown: the gateway ends first.
    """
    if not _is_json(here.headers) and here.body.announced != 0:
        raise InvalidRequest("Content-Type must be application/json.")
    coding = here.headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("A body must not be compressed.", param="Content-Encoding")
    if here.body.arrived:  # as most have: no timer and no turn of the loop, which are 40 µs
        body = await here.body.whole()
    else:
        body = await _wait_for_body(here)
    here.record.taken = trio.current_time()
    if here.gateway.settings.log.prompts:
        here.record.body = body[:LOGGED_BYTES].decode(errors="replace")
    return body


async def _wait_for_body(here: Exchange) -> bytes:
    try:
        with here.gateway.arriving(), trio.fail_after(here.gateway.settings.limits.body_s):
            return await here.body.whole()
    except trio.TooSlowError as error:
        raise RequestTimeout("The request body did not arrive in time.") from error


def _is_json(headers: RequestHeaders) -> bool:
    """Whether a body is said to be JSON, or nothing is said."""
    kind = headers.get(b"content-type")
    if kind is None or kind == _JSON:
        return True
    return parse_options_header(kind)[0].lower() in ("", _JSON)
