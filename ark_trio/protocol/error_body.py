"""The one spelling of an error, used as a JSON body before the response begins and as an event after it."""

from typing import Any

from ark_trio.errors import ArkError
from ark_trio.protocol.sse import DONE, frame


def error_body(error: ArkError) -> dict[str, Any]:
    """Return OpenAI's error object. SDKs raise on any truthy `error`, in a body and in an event."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_frames(error: ArkError) -> bytes:
    """Return the end of a stream that has failed: the error, then [DONE]."""
    return frame(error_body(error)) + DONE
