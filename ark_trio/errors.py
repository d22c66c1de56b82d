"""Every way in which a request can fail, as the client sees it.

One class is one client-visible outcome. Foreign exceptions become these at the edge where they appear, so nothing
above that edge knows gRPC, sockets or cattrs. `message` is written for the client: no hosts, paths or Python in it.
"""

from typing import ClassVar


class ArkError(Exception):
    """A failure with a client-visible outcome: an HTTP status, OpenAI's error type, and a code."""

    status: ClassVar[int] = 500
    """HTTP status while the response has not begun."""
    kind: ClassVar[str] = "server_error"
    """OpenAI's `error.type`."""
    default_code: ClassVar[str | None] = None
    outcome: ClassVar[str] = "internal_error"
    """How the request ended, as a log and metric label."""
    retry_after_s: int | None = None
    """Value of the Retry-After header, where a retry can help."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class InternalError(ArkError):
    """A fault of ours or of the engine that says nothing more precise."""


class InvalidRequest(ArkError):
    """The caller's request can't be served as it stands."""

    status = 400
    kind = "invalid_request_error"
    outcome = "invalid_request"


class NotAuthenticated(ArkError):
    """No key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    default_code = "invalid_api_key"
    outcome = "not_authenticated"


class PermissionDenied(ArkError):
    """The key is good, but not for this."""

    status = 403
    kind = "permission_error"
    outcome = "permission_denied"


class NotFound(ArkError):
    """No such route, object or model."""

    status = 404
    kind = "invalid_request_error"
    outcome = "not_found"


class UnknownModel(NotFound):
    """No decoder serves the model that was asked for."""

    default_code = "model_not_found"


class MethodNotAllowed(ArkError):
    """The route exists, but not for this HTTP method."""

    status = 405
    kind = "invalid_request_error"
    outcome = "method_not_allowed"


class RequestTimeout(ArkError):
    """The request body did not arrive in time."""

    status = 408
    kind = "invalid_request_error"
    outcome = "request_timeout"


class Conflict(ArkError):
    """The engine says the request collides with another one."""

    status = 409
    kind = "invalid_request_error"
    outcome = "conflict"


class BodyTooLarge(ArkError):
    """The request body is over the limit."""

    status = 413
    kind = "invalid_request_error"
    outcome = "body_too_large"


class UriTooLong(ArkError):
    """The request line is over the limit."""

    status = 414
    kind = "invalid_request_error"
    outcome = "uri_too_long"


class UnsupportedMediaType(ArkError):
    """The body is encoded in a way that is not read here."""

    status = 415
    kind = "invalid_request_error"
    outcome = "unsupported_media_type"


class HeadersTooLarge(ArkError):
    """The request's head is over a limit."""

    status = 431
    kind = "invalid_request_error"
    outcome = "headers_too_large"


class UnknownCoding(ArkError):
    """The request's body comes in a transfer coding that is not read here."""

    status = 501
    kind = "invalid_request_error"
    outcome = "unknown_coding"


class Overloaded(ArkError):
    """Every place to run or wait is taken, here or in the engine."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    outcome = "overloaded"
    retry_after_s = 1


class RateLimited(Overloaded):
    """The key has asked as much as it may for now."""

    outcome = "rate_limited"


class NotImplementedByEngine(ArkError):
    """The engine does not offer this method."""

    status = 501
    outcome = "not_implemented"


class BadBackend(ArkError):
    """The engine answered against its contract, or refused our own credentials."""

    status = 502
    outcome = "bad_backend"


class PrefillerFailed(BadBackend):
    """The prefiller behind a decoder failed, refused what the decoder asked, or sent a state that is of no use."""

    default_code = "prefiller_failed"


class BackendCancelled(BadBackend):
    """The engine gave the request up though the client had not left."""

    outcome = "backend_cancelled"


class Unavailable(ArkError):
    """No decoder can take the request now."""

    status = 503
    outcome = "unavailable"
    retry_after_s = 1


class Unreachable(Unavailable):
    """The decoder could not be connected to, or the connection to it broke."""

    outcome = "unreachable"


class ShuttingDown(Unavailable):
    """This gateway is being stopped."""

    outcome = "shutting_down"


class DeadlineExceeded(ArkError):
    """A time limit passed; `code` says which."""

    status = 504
    outcome = "deadline_exceeded"


class ConfigError(Exception):
    """A setting is wrong. The text is one line for the operator; the process exits with 2."""
