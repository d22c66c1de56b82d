"""Calls as OpenAI's API had them in 2023 (`functions`, `function_call`): engines get today's `tools`, callers today's answer in the old words.

There is one call an answer, without an id. Source: OpenAI's API description 2.3.0, where all of it is deprecated.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.message import Message, ToolCall
from ark_trio.protocol.structure import structure
from ark_trio.protocol.tool import FunctionName


def parse_function_call(value: Any) -> Any:
    """Check `function_call` and return it as it stands."""
    if value is None or value in ("none", "auto"):
        return value
    if not isinstance(value, dict):
        raise unexpected("none, auto or a named function", value)
    structure(value, FunctionName)
    return value


def check_function_call(choice: Any, functions: list[dict[str, Any]] | None) -> None:
    """Raise a Fault if `choice` can't be made from `functions`; both as checked above."""
    if choice is None:
        return
    if functions is None:
        raise Fault("is allowed only when functions are given", place="function_call")
    if isinstance(choice, dict) and all(each["name"] != choice["name"] for each in functions):
        raise unexpected("the name of one of the functions", choice["name"], place="function_call")


def functions_inputs(functions: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Return the engine's inputs for functions. An answer of that time has room for one call."""
    tools = [{"type": "function", "function": function} for function in functions]
    return {"tools": tools, "parallel_tool_calls": False}


def function_call_inputs(choice: Any) -> Mapping[str, Any]:
    """Return the engine's inputs for the choice among functions."""
    if isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    return {"tool_choice": choice}


def told_finish(reason: str | None, *, functions: bool) -> str | None:
    """Return how the caller is told that a choice has ended."""
    return "function_call" if functions and reason == "tool_calls" else reason


def in_todays_words(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield a conversation with its old calls and results as tool calls and results: chat templates know these."""
    call_id = ""
    for position, message in enumerate(messages):
        if message.role == "function":
            yield evolve(message, role="tool", content=message.content or "", tool_call_id=call_id)
        elif message.function_call is not None:
            call_id = f"call_{position}"
            call = ToolCall(id=call_id, function=message.function_call)
            yield evolve(message, function_call=None, tool_calls=(*message.tool_calls, call))
        else:
            yield message
