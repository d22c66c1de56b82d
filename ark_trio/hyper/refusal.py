"""The answer to a request that the application never hears of."""

import orjson
import structlog

from ark_trio.errors import ArkError
from ark_trio.ids import new_id
from ark_trio.protocol.error_body import error_body

log = structlog.get_logger()

Field = tuple[bytes, bytes]


def spell_refusal(error: ArkError) -> tuple[list[Field], bytes]:
    """Return header fields and body, and log it under the id that its sender is told."""
    request_id = new_id()
    log.info("request_refused", request_id=request_id, status=error.status, reason=error.message)
    body = orjson.dumps(error_body(error))
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    if error.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % error.retry_after_s))
    return fields, body
