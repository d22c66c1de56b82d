"""JSON and error replies. Every error leaves through here, in OpenAI's shape; never as HTML."""

from typing import Any

import orjson
from quart import Response
from werkzeug.exceptions import HTTPException

from ark_trio.api.access import as_told
from ark_trio.api.connection import exchange
from ark_trio.errors import (
    ArkError,
    BodyTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    RequestTimeout,
)
from ark_trio.protocol.callers_words import in_callers_words
from ark_trio.protocol.error_body import error_body

_HTTP_ERRORS: dict[int, tuple[type[ArkError], str]] = {
    400: (InvalidRequest, "The request could not be read."),
    404: (NotFound, "There is no such route."),
    405: (MethodNotAllowed, "This route does not answer to that method."),
    408: (RequestTimeout, "The request body did not arrive in time."),
    413: (BodyTooLarge, "The request body is larger than is allowed."),
}


def json_reply(body: Any, status: int = 200) -> Response:
    """Return `body` as JSON."""
    return Response(orjson.dumps(body), status=status, content_type="application/json")


async def reply_to_ark_error(error: ArkError) -> Response:
    """Return the reply to a failure before the first byte, and record it."""
    error = in_callers_words(as_told(error), exchange.get().names())
    exchange.get().record.end_failed(error)
    reply = json_reply(error_body(error), error.status)
    if error.retry_after_s is not None:
        reply.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, NotAuthenticated):
        reply.headers["WWW-Authenticate"] = 'Bearer realm="ark-trio"'
    return reply


async def reply_to_http_exception(error: HTTPException) -> Response:
    """Return our reply for what Quart and Werkzeug raise: no route, wrong method, body too large, a bug."""
    kind, message = _HTTP_ERRORS.get(error.code or 500, (InternalError, "The gateway failed."))
    exchange.get().record.judge = None  # whatever it is, no decoder did it
    reply = await reply_to_ark_error(kind(message))
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        reply.headers["Allow"] = ", ".join(sorted(allowed))
    return reply
