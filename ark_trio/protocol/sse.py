"""Server-sent events: the three kinds of bytes that a stream is made of. Source: WHATWG HTML, 9.2.6."""

from typing import Any, Final

import orjson

DONE: Final = b"data: [DONE]\n\n"
"""The last event of every stream, after an error too."""

KEEP_ALIVE: Final = b": keep-alive\n\n"
"""A comment: clients skip it, proxies see traffic."""


def frame(obj: Any) -> bytes:
    """Spell one event. JSON escapes line breaks, so an event is always one `data` line."""
    return b"data: " + orjson.dumps(obj) + b"\n\n"
