"""A chat completion request, from the bytes of its body to values that are safe to act on."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, fields, frozen

from ark_trio.protocol.chat_body import PARAMETERS, ChatBody
from ark_trio.protocol.json_body import MAX_DEPTH, parse_body, unknown_fields
from ark_trio.protocol.message import Message
from ark_trio.protocol.parameter import values_to_forward
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.sampling_body import StreamOptions
from ark_trio.protocol.tool import narrowed

_MESSAGE_FIELDS: Final = frozenset(attribute.name for attribute in fields(Message))
_forwarded: Final = values_to_forward(PARAMETERS)
_NO_OPTIONS: Final = StreamOptions()


@frozen(kw_only=True)
class ChatRequest:
    """What the client asks, checked."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    """One more chunk at the end of a stream, with the totals."""
    continuous_usage: bool = False
    """The totals so far on every chunk of a stream."""
    functions: bool = False
    """Calls are told in the words of 2023 (see `function_call`)."""
    n: int = 1
    """Choices asked for. Forwarded only if the client set it."""
    reading: Reading = field(factory=Reading)
    """What the client wants to see of the answer; how its model writes is for the caller to add."""
    batch: bool = False
    """Others may go first."""
    params: Mapping[str, Any] = field(factory=dict)
    """Parameters to forward that the client set, under OpenAI's names."""
    max_tokens: int | None = None
    """The most that may be generated, all choices together."""
    unknown: tuple[str, ...] = ()
    """Fields that nobody here knows, sorted, cut and bounded: for a debug log."""


def parse_chat(body: bytes, max_depth: int = MAX_DEPTH) -> ChatRequest:
    """Parse and check a request body.

    Raises:
        InvalidRequest: and nothing else, whatever the bytes are.
    """
    parsed, raw = parse_body(body, ChatBody, max_depth)
    options = (parsed.stream and parsed.stream_options) or _NO_OPTIONS
    n = parsed.n or 1
    limit = parsed.max_completion_tokens or parsed.max_tokens
    return ChatRequest(
        model=parsed.model,
        messages=parsed.messages,
        stream=bool(parsed.stream),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.continuous_usage_stats),
        functions=parsed.functions is not None,
        n=n,
        max_tokens=limit and limit * n,
        batch=parsed.batch or parsed.service_tier == "flex",
        reading=_reading(parsed),
        params=_params(parsed),
        unknown=_unknown(raw),
    )


def _params(parsed: ChatBody) -> dict[str, Any]:
    params = _forwarded(parsed)
    if "max_completion_tokens" in params:
        params.pop("max_tokens", None)
    alternatives = params.pop("top_logprobs", None)
    if params.pop("logprobs", False):
        # One number carries both parameters, and 0 would read as "none".
        params["logprobs"] = max(1, alternatives or 0)
    if "tool_choice" in params:
        params["tool_choice"], params["tools"] = narrowed(params["tool_choice"], params["tools"])
    return params


def _reading(parsed: ChatBody) -> Reading:
    choice, tools = narrowed(parsed.tool_choice, parsed.tools or [])
    names = [tool["function"]["name"] for tool in tools]
    names += [function["name"] for function in parsed.functions or ()]
    may_call = "none" not in (choice, parsed.function_call)
    return Reading(
        tool_names=frozenset(names if may_call else ()),
        include_reasoning=parsed.include_reasoning is not False,
        separate_reasoning=parsed.separate_reasoning is not False,
        top_logprobs=(parsed.top_logprobs or 0) if parsed.logprobs else None,
    )


def _unknown(raw: dict[str, Any]) -> tuple[str, ...]:
    names = raw.keys() - PARAMETERS.keys()
    in_messages: set[str] = set().union(*raw["messages"]) - _MESSAGE_FIELDS
    if not names and not in_messages:
        return ()
    return unknown_fields(names | {f"messages[].{name}" for name in in_messages})
