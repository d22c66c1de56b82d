"""The body of POST /v1/chat/completions, and what becomes of each of its parameters.

The names are those of OpenAI's API description 2.3.0, then extras that are in wide use. Null means "not set".
"""
# ruff: noqa: RUF009 - the calls in the defaults declare attrs fields

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from attrs import NOTHING, define

from ark_trio.protocol.fault import Fault
from ark_trio.protocol.function_call import (
    check_function_call,
    function_call_inputs,
    functions_inputs,
    parse_function_call,
)
from ark_trio.protocol.message import Message
from ark_trio.protocol.parameter import (
    Parameter,
    acted_on,
    forwarded,
    no_effect,
    parameters_of,
    refused,
)
from ark_trio.protocol.rules import having, without
from ark_trio.protocol.sampling_body import CONSTRAINED_ONCE, SamplingBody
from ark_trio.protocol.structure import NOT_EMPTY, Bounds, structure
from ark_trio.protocol.thinking import Thinking, effort_inputs, parse_thinking, thinking_inputs
from ark_trio.protocol.tool import (
    AllowedChoice,
    Function,
    FunctionName,
    NamedChoice,
    Tool,
    check_tool_choice,
    parse_functions,
    parse_tool_choice,
    parse_tools,
)

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""OpenAI's words, and DeepSeek's "max"."""


def parse_messages(value: Any) -> tuple[Message, ...]:
    """Check a conversation."""
    messages = structure(value, tuple[Message, ...])
    if not messages:
        raise Fault("expected at least one message, got an empty list")
    return messages


@define(kw_only=True)
class ChatBody(SamplingBody):
    """A conversation to answer; null is as good as absent."""

    # Three ways to have calls, times six to have a constraint: generators of requests stop at some twenty combinations, so that
    # top_logprobs needs logprobs is told in words only.
    RULES: ClassVar = {
        "allOf": [
            {
                "anyOf": [
                    without("tools", "tool_choice", "functions", "function_call"),
                    having(without("functions", "function_call"), tools={"type": "array"}),
                    having(without("tools", "tool_choice"), functions={"type": "array"}),
                ]
            },
            CONSTRAINED_ONCE,
        ]
    }

    messages: tuple[Message, ...] = acted_on(
        "the conversation",
        default=NOTHING,
        parse=parse_messages,
        shape=Annotated[tuple[Message, ...], NOT_EMPTY],
    )

    include_reasoning: bool | None = acted_on("false leaves the reasoning out of the answer")
    separate_reasoning: bool | None = acted_on(
        "false leaves the reasoning in the text, between <think> and </think>"
    )

    max_completion_tokens: int | None = forwarded(
        "int64_", key="max_new_tokens", bounds=Bounds(minimum=1), note="wins over max_tokens"
    )
    logprobs: bool | None = forwarded(
        "int64_", note="the engine is asked for top_logprobs alternatives, at least 1"
    )
    top_logprobs: int | None = forwarded(
        "int64_", key="logprobs", bounds=Bounds(minimum=0, maximum=20), note="needs logprobs"
    )
    tools: list[dict[str, Any]] | None = forwarded(
        "value_list",
        parse=parse_tools,
        shape=Annotated[tuple[Tool, ...], NOT_EMPTY] | None,
        note="names are 1 to 64 of a-z, A-Z, 0-9, _ and -, none twice, as OpenAI has them; integers in schemas have 64 bits",
    )
    tool_choice: Any = forwarded(
        "string_",
        "struct_",
        parse=parse_tool_choice,
        shape=Literal["none", "auto", "required"] | NamedChoice | AllowedChoice | None,
        note="needs tools; of allowed_tools the mode, and only those tools",
    )
    parallel_tool_calls: bool | None = forwarded("bool_")
    functions: list[dict[str, Any]] | None = forwarded(
        "value_list",
        key="tools",
        spread=functions_inputs,
        parse=parse_functions,
        shape=Annotated[tuple[Function, ...], NOT_EMPTY] | None,
        note="deprecated: as tools, with parallel_tool_calls false; the call is told as function_call",
    )
    function_call: Any = forwarded(
        "string_",
        "struct_",
        key="tool_choice",
        spread=function_call_inputs,
        parse=parse_function_call,
        shape=Literal["none", "auto"] | FunctionName | None,
        note="deprecated: as tool_choice; needs functions",
    )
    reasoning_effort: Effort | None = forwarded(
        "string_",
        spread=effort_inputs,
        note="none also tells the chat template not to think, as thinking does",
    )
    verbosity: Literal["low", "medium", "high"] | None = forwarded("string_")

    chat_template_kwargs: dict[str, Any] | None = forwarded("struct_")
    continue_final_message: bool | None = forwarded("bool_")
    add_generation_prompt: bool | None = forwarded("bool_")
    thinking: bool | None = forwarded(
        "struct_",
        key="chat_template_kwargs",
        spread=thinking_inputs,
        parse=parse_thinking,
        shape=Thinking | bool | None,
        note="as thinking and enable_thinking in chat_template_kwargs; auto leaves it to the model",
    )

    safety_identifier: str | None = no_effect("identifies the end user to a provider")
    prompt_cache_key: str | None = no_effect("a hint; prefixes are cached by their tokens")
    prompt_cache_options: dict[str, Any] | None = no_effect(
        "a hint; prefixes are cached by their tokens"
    )
    prompt_cache_retention: str | None = no_effect("a hint; prefixes are cached by their tokens")
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = acted_on(
        "flex is served after others, where requests wait"
    )

    audio: Any = refused("audio is not available here")
    modalities: Any = refused("only text is available here", unless=(["text"],))
    web_search_options: Any = refused("web search is not available here")
    prediction: Any = refused("predicted outputs are not available here")
    moderation: Any = refused("moderation is not available here")
    store: Any = refused("answers can't be stored here", unless=(False,))

    def __attrs_post_init__(self) -> None:
        """Check what takes two parameters to judge."""
        if self.top_logprobs is not None and not self.logprobs:
            raise Fault("is allowed only when logprobs is true", place="top_logprobs")
        check_tool_choice(self.tool_choice, self.tools)
        check_function_call(self.function_call, self.functions)
        if self.functions is not None and self.tools is not None:
            raise Fault("can't be combined with tools", place="functions")
        self.check_constraints()


PARAMETERS: Final[Mapping[str, Parameter]] = parameters_of(ChatBody)
