"""gRPC status ↔ our errors, both ways.

Only statuses that blame the request carry the engine's own words to the client: there they are the answer ("context is 8192
tokens, prompt has 9000"), as far as `hearsay` lets them. Every other message is logged and replaced.
"""

import string
from collections.abc import Mapping
from urllib.parse import quote, unquote

from grpclib.const import Status

from ark_trio.errors import (
    ArkError,
    BackendCancelled,
    BadBackend,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    Overloaded,
    PrefillerFailed,
    Unavailable,
    UnknownModel,
)
from ark_trio.rpc.hearsay import is_harmless, told

CODE_KEY = "ark-error-code"
"""Trailing metadata in which our engine names OpenAI's `error.code`."""
PARAM_KEY = "ark-error-param"
"""Trailing metadata in which our engine names OpenAI's `error.param`."""
MAX_MESSAGE_CHARS = 500
_MAX_METADATA_CHARS = 128
"""With the message, percent-encoded, within the 8 KiB of headers that gRPC's own clients take."""
_PLAIN = string.punctuation.replace("%", "")
"""What stands for itself in metadata, beside letters and digits; parameters have names that callers chose."""

_TO_ERROR: dict[Status, tuple[type[ArkError], str | None]] = {
    Status.INVALID_ARGUMENT: (InvalidRequest, None),
    Status.FAILED_PRECONDITION: (InvalidRequest, None),
    Status.OUT_OF_RANGE: (InvalidRequest, None),
    Status.NOT_FOUND: (NotFound, None),
    Status.ABORTED: (Conflict, None),
    Status.ALREADY_EXISTS: (Conflict, None),
    Status.RESOURCE_EXHAUSTED: (
        Overloaded,
        "The engine has no room for this request now. Try again shortly.",
    ),
    Status.UNIMPLEMENTED: (
        NotImplementedByEngine,
        "The engine behind this model does not offer this.",
    ),
    Status.UNAVAILABLE: (Unavailable, "The engine is not available now. Try again shortly."),
    Status.DEADLINE_EXCEEDED: (DeadlineExceeded, "The engine ran out of time."),
    Status.UNAUTHENTICATED: (BadBackend, "The engine refused the gateway."),
    Status.PERMISSION_DENIED: (BadBackend, "The engine refused the gateway."),
    Status.CANCELLED: (BackendCancelled, "The engine gave the request up."),
    Status.INTERNAL: (InternalError, "The engine failed."),
    Status.UNKNOWN: (InternalError, "The engine failed."),
    Status.DATA_LOSS: (InternalError, "The engine failed."),
}
"""Status -> our error and the client's text; None: the engine's own."""

_TO_STATUS: tuple[tuple[type[ArkError], Status], ...] = (
    (InvalidRequest, Status.INVALID_ARGUMENT),
    (NotFound, Status.NOT_FOUND),
    (Conflict, Status.ABORTED),
    (Overloaded, Status.RESOURCE_EXHAUSTED),
    (NotImplementedByEngine, Status.UNIMPLEMENTED),
    (Unavailable, Status.UNAVAILABLE),
    (DeadlineExceeded, Status.DEADLINE_EXCEEDED),
    (BackendCancelled, Status.CANCELLED),
    (ArkError, Status.INTERNAL),
)


def error_from_status(
    status: Status, message: str | None, metadata: Mapping[str, str | bytes]
) -> ArkError:
    """Return the client-visible error for a call that ended with `status` (not OK)."""
    kind, text = _TO_ERROR.get(status, (InternalError, "The engine failed."))
    if text is None:
        text = (told(message or "") or "The engine refused the request.")[:MAX_MESSAGE_CHARS]
    code, param = _text(metadata.get(CODE_KEY)), _text(metadata.get(PARAM_KEY))
    if kind is NotFound and code == UnknownModel.default_code:
        kind = UnknownModel
    if kind is InternalError and code == PrefillerFailed.default_code:
        kind, text = PrefillerFailed, "The prefiller behind this model failed."
    return kind(text, param=param, code=code)


def status_of_error(error: ArkError) -> tuple[Status, str, dict[str, str]]:
    """Return status, message and trailing metadata that carry `error` to an ARK client."""
    status = next(status for kind, status in _TO_STATUS if isinstance(error, kind))
    metadata = {CODE_KEY: error.code, PARAM_KEY: error.param}
    return (
        status,
        error.message[:MAX_MESSAGE_CHARS],
        {key: _encoded(value) for key, value in metadata.items() if value},
    )


def _encoded(value: str) -> str:
    """Return `value` as metadata may hold it: ASCII without spaces, other characters as gRPC spells messages."""
    return quote(value[:_MAX_METADATA_CHARS], safe=_PLAIN, errors="replace")


def _text(value: str | bytes | None) -> str | None:
    """Return a name that an engine gives, unless it is more than a name."""
    name = unquote(value) if isinstance(value, str) else ""
    return name if name and is_harmless(name) else None
