"""Tool-call increments in an engine's message, both ways."""

from collections.abc import Iterable
from typing import Any, TypeVar

from ark_trio.protocol.ark_fields import malformed
from ark_trio.protocol.step import ToolCallDelta

T = TypeVar("T", int, str)


def read_tool_calls(calls: Any) -> tuple[ToolCallDelta, ...]:
    """Return what an engine sent as `tool_calls`, decoded to plain Python; null has none.

    Raises:
        BadBackend: it has another shape than OpenAI's.
    """
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise malformed("tool_calls")
    return tuple(_read_call(call, position) for position, call in enumerate(calls))


def write_tool_calls(calls: Iterable[ToolCallDelta]) -> list[dict[str, Any]]:
    """Return increments in OpenAI's shape."""
    return [_write_call(call) for call in calls]


def _read_call(call: Any, position: int) -> ToolCallDelta:
    index = _field(call, "index", int)
    function = _object(call.get("function") or {})
    return ToolCallDelta(
        # Engines that send a call whole may leave its index out.
        index=position if index is None else index,
        id=_field(call, "id", str) or None,
        name=_field(function, "name", str) or None,
        arguments=_field(function, "arguments", str) or "",
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed("tool_calls")
    return value


def _field(holder: Any, name: str, kind: type[T]) -> T | None:
    value = _object(holder).get(name)
    if value is None:
        return None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise malformed(f"tool_calls.{name}")
    return value


def _write_call(call: ToolCallDelta) -> dict[str, Any]:
    function = {"arguments": call.arguments}
    if call.name is not None:
        function["name"] = call.name
    written: dict[str, Any] = {"index": call.index, "function": function}
    if call.id is not None:
        written |= {"id": call.id, "type": "function"}
    return written
