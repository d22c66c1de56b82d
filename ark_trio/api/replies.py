"""Replies. Every error leaves through here, in OpenAI's shape; never as HTML."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import orjson
from attrs import define
from werkzeug.exceptions import HTTPException

from ark_trio.api.access import as_told
from ark_trio.api.exchange import Exchange
from ark_trio.errors import (
    ArkError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
)
from ark_trio.protocol.callers_words import in_callers_words
from ark_trio.protocol.error_body import error_body

Headers = list[tuple[bytes, bytes]]
"""As they go out, names in lower case."""

_JSON = (b"content-type", b"application/json")
_HTTP_ERRORS: dict[int, tuple[type[ArkError], str]] = {
    400: (InvalidRequest, "The request could not be read."),
    404: (NotFound, "There is no such route."),
    405: (MethodNotAllowed, "This route does not answer to that method."),
}


@define(eq=False)
class Reply:
    """What a client gets. The headers are this reply's own list."""

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes, None]
    """Whole, or piece by piece."""

    def tell(self, name: str, value: str) -> None:
        """Add a header."""
        self.headers.append((name.encode(), value.encode()))


def json_reply(body: Any, status: int = 200) -> Reply:
    """Return `body` as JSON."""
    data = orjson.dumps(body)
    return Reply(status, [_JSON, length_of(data)], data)


def length_of(body: bytes) -> tuple[bytes, bytes]:
    """Return the header that tells how long `body` is."""
    return (b"content-length", b"%d" % len(body))


def reply_to(here: Exchange, error: BaseException) -> Reply:
    """Return the reply to a failure before the first byte; of a group, to the first that has one.

    Raises:
        BaseException: the failure itself, which is not one that clients are told of.
    """
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            if isinstance(one, (Exception, BaseExceptionGroup)):
                with suppress(Exception):
                    return reply_to(here, one)
    if isinstance(error, ArkError):
        return reply_to_ark_error(here, error)
    if isinstance(error, HTTPException):
        return reply_to_http_exception(here, error)
    raise error


def reply_to_ark_error(here: Exchange, error: ArkError) -> Reply:
    """Return the reply to one of our own errors, and record it."""
    error = in_callers_words(as_told(here, error), here.names())
    here.record.end_failed(error)
    reply = json_reply(error_body(error), error.status)
    if error.retry_after_s is not None:
        reply.tell("retry-after", str(error.retry_after_s))
    if isinstance(error, NotAuthenticated):
        reply.tell("www-authenticate", 'Bearer realm="ark-trio"')
    return reply


def reply_to_http_exception(here: Exchange, error: HTTPException) -> Reply:
    """Return our reply for what Werkzeug raises: no route, wrong method, or a bug's stand-in."""
    kind, message = _HTTP_ERRORS.get(error.code or 500, (InternalError, "The gateway failed."))
    here.record.judge = None  # whatever it is, no decoder did it
    reply = reply_to_ark_error(here, kind(message))
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        reply.tell("allow", ", ".join(sorted(allowed)))
    return reply
