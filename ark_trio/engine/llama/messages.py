"""One message of a conversation, as llama.cpp reads it."""

from collections.abc import Mapping
from typing import Any

from ark_trio.engine.llama.readers import is_function
from ark_trio.errors import InvalidRequest


def check_message(place: str, message: Mapping[str, Any]) -> None:
    """Check a message that stands at `place`, as in `messages[0]`, and has the key `content`.

    Raises:
        InvalidRequest: the model can't take it, or llama.cpp can't read it; `param` says where.
    """
    content = message["content"]
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or part.get("type") != "text":
            raise InvalidRequest("This model reads text only.", param=f"{place}.content")
        if not isinstance(part.get("text"), str):
            raise InvalidRequest("A part of text has no text.", param=f"{place}.content")
    if not isinstance(content, str | list | None):
        text = f"{place}.content must be text or a list of parts."
        raise InvalidRequest(text, param=f"{place}.content")
    for key in ("name", "tool_call_id", "reasoning_content"):
        if not isinstance(message.get(key), str | None):
            raise InvalidRequest(f"{place}.{key} must be text.", param=f"{place}.{key}")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        text = f"{place}.tool_calls must be a list of function calls."
        raise InvalidRequest(text, param=f"{place}.tool_calls")


def _is_call(call: Any) -> bool:
    """Whether llama.cpp can read `call` as one; it calls others a failure of its own."""
    return (
        isinstance(call, dict)
        and call.get("type") == "function"
        and is_function(call.get("function"))
        and isinstance(call["function"].get("arguments"), str)
        and isinstance(call.get("id"), str | None)
    )
