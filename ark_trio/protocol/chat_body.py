"""The body of POST /v1/chat/completions, and what becomes of each of its parameters.

The names are those of OpenAI's API description 2.3.0, then extras that are in wide use. Null means "not set".
"""
# ruff: noqa: RUF009 - the calls in the defaults declare attrs fields

from collections.abc import Mapping
from typing import Any, Final

from attrs import NOTHING, frozen

from ark_trio.protocol.constraint import (
    StructuredOutputs,
    choice_inputs,
    parse_choice,
    parse_schema,
    parse_structured_outputs,
    schema_inputs,
    structured_inputs,
)
from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.message import Message
from ark_trio.protocol.parameter import (
    Parameter,
    acted_on,
    checked_json,
    forwarded,
    no_effect,
    parameters_of,
    refused,
)
from ark_trio.protocol.structure import Bounds, expect_object, expect_text, structure
from ark_trio.protocol.thinking import effort_inputs, parse_thinking, thinking_inputs
from ark_trio.protocol.tool import (
    ResponseFormat,
    check_tool_choice,
    parse_tool_choice,
    parse_tools,
)

MAX_CHOICES: Final = 128
_MAX_STOPS: Final = 4
_BIAS: Final = Bounds(minimum=-100, maximum=100)
_UNIT: Final = Bounds(minimum=0, maximum=1)
_PENALTY: Final = Bounds(minimum=-2, maximum=2)
_POSITIVE: Final = Bounds(minimum=1)
_CONSTRAINTS: Final = (
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)
"""Ways to say what the answer's text must look like."""


def _model(value: Any) -> str:
    if not expect_text(value):
        raise Fault("expected the name of a model, got an empty text")
    return str(value)


def _messages(value: Any) -> tuple[Message, ...]:
    messages = structure(value, tuple[Message, ...])
    if not messages:
        raise Fault("expected at least one message, got an empty list")
    return messages


def _stop(value: Any) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise unexpected("text or a list of texts", value)
    stops = structure(value, tuple[str, ...])
    if len(stops) > _MAX_STOPS:
        raise Fault(f"expected at most {_MAX_STOPS} texts, got {len(stops)}")
    return stops or None


def _logit_bias(value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    return {_token_id(key): _bias(bias) for key, bias in expect_object(value).items()} or None


def _token_id(key: str) -> int:
    # int() alone would take " 1", "1_0" and other scripts' digits, and refuse thousands of digits in its own words.
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(2**31))):
        raise unexpected("token ids, integers, as keys", key)
    return int(key)


def _bias(value: Any) -> float:
    number = structure(value, float)
    if not _BIAS.admit(number):
        raise unexpected(str(_BIAS), value)
    return number


@frozen(kw_only=True)
class StreamOptions:
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    """One more chunk at the end, with the totals."""
    continuous_usage_stats: bool | None = None
    """The totals so far on every chunk."""
    include_obfuscation: bool | None = None
    """Without effect: chunks are never padded here."""


@frozen(kw_only=True)
class ChatBody:
    """The body as it stands, checked. None: the client did not set it."""

    model: str = acted_on("chooses the decoders", default=NOTHING, parse=_model)
    messages: tuple[Message, ...] = acted_on("the conversation", default=NOTHING, parse=_messages)
    stream: bool | None = acted_on("answer as server-sent events")
    stream_options: StreamOptions | None = acted_on("ignored unless stream is true")

    include_reasoning: bool | None = acted_on("false leaves the reasoning out of the answer")
    separate_reasoning: bool | None = acted_on(
        "false leaves the reasoning in the text, between <think> and </think>"
    )

    max_tokens: int | None = forwarded("int64_", key="max_new_tokens", bounds=_POSITIVE)
    max_completion_tokens: int | None = forwarded(
        "int64_", key="max_new_tokens", bounds=_POSITIVE, note="wins over max_tokens"
    )
    n: int | None = forwarded("int64_", bounds=Bounds(minimum=1, maximum=MAX_CHOICES))
    seed: int | None = forwarded("int64_")
    temperature: float | None = forwarded("float_", bounds=Bounds(minimum=0, maximum=2))
    top_p: float | None = forwarded("float_", bounds=_UNIT)
    presence_penalty: float | None = forwarded("float_", bounds=_PENALTY)
    frequency_penalty: float | None = forwarded("float_", bounds=_PENALTY)
    stop: str | tuple[str, ...] | None = forwarded("string_", "string_list", parse=_stop)
    logit_bias: dict[int, float] | None = forwarded("int64_dict", parse=_logit_bias)
    logprobs: bool | None = forwarded(
        "int64_", note="the engine is asked for top_logprobs alternatives, at least 1"
    )
    top_logprobs: int | None = forwarded(
        "int64_", key="logprobs", bounds=Bounds(minimum=0, maximum=20), note="needs logprobs"
    )
    response_format: Any = forwarded("struct_", parse=checked_json(ResponseFormat))
    tools: list[dict[str, Any]] | None = forwarded("value_list", parse=parse_tools)
    tool_choice: Any = forwarded("string_", "struct_", parse=parse_tool_choice, note="needs tools")
    parallel_tool_calls: bool | None = forwarded("bool_")
    reasoning_effort: str | None = forwarded(
        "string_",
        spread=effort_inputs,
        note="none also tells the chat template not to think, as thinking does",
    )
    verbosity: str | None = forwarded("string_")

    top_k: int | None = forwarded("int64_", bounds=Bounds(minimum=-1))
    min_p: float | None = forwarded("float_", bounds=_UNIT)
    repetition_penalty: float | None = forwarded("float_", bounds=Bounds(above=0))
    length_penalty: float | None = forwarded("float_")
    min_tokens: int | None = forwarded("int64_", bounds=Bounds(minimum=0))
    max_prompt_tokens: int | None = forwarded("int64_", bounds=_POSITIVE)
    stop_token_ids: tuple[int, ...] | None = forwarded("int64_list", "value_list")
    include_stop_str_in_output: bool | None = forwarded("bool_")
    ignore_eos: bool | None = forwarded("bool_")
    skip_special_tokens: bool | None = forwarded("bool_")
    chat_template_kwargs: dict[str, Any] | None = forwarded("struct_")
    continue_final_message: bool | None = forwarded("bool_")
    add_generation_prompt: bool | None = forwarded("bool_")
    structured_outputs: StructuredOutputs | None = forwarded(
        spread=structured_inputs,
        parse=parse_structured_outputs,
        note="one of json, json_object (as response_format), choice, grammar (as guided_grammar) and regex",
    )
    guided_json: dict[str, Any] | None = forwarded(
        "struct_",
        key="response_format",
        spread=schema_inputs,
        parse=parse_schema,
        note="as a json_schema; text that spells one is taken too",
    )
    guided_regex: str | None = forwarded("string_")
    guided_choice: tuple[str, ...] | None = forwarded(
        "string_",
        key="guided_grammar",
        spread=choice_inputs,
        parse=parse_choice,
        note="as a grammar with one rule",
    )
    guided_grammar: str | None = forwarded("string_", note="GBNF or EBNF")
    thinking: bool | None = forwarded(
        "struct_",
        key="chat_template_kwargs",
        spread=thinking_inputs,
        parse=parse_thinking,
        note="as thinking and enable_thinking in chat_template_kwargs; auto leaves it to the model",
    )
    priority: int | None = forwarded("int64_")
    cache_salt: str | None = forwarded("string_")

    metadata: Any = no_effect("kept by nobody here")
    user: Any = no_effect("identifies the end user to a provider")
    safety_identifier: Any = no_effect("identifies the end user to a provider")
    prompt_cache_key: Any = no_effect("a hint; prefixes are cached by their tokens")
    prompt_cache_options: Any = no_effect("a hint; prefixes are cached by their tokens")
    prompt_cache_retention: Any = no_effect("a hint; prefixes are cached by their tokens")
    service_tier: Any = no_effect("there is one tier")
    request_id: Any = no_effect("the header x-request-id names a request")

    audio: Any = refused("audio is not available here")
    modalities: Any = refused("only text is available here", unless=(["text"],))
    web_search_options: Any = refused("web search is not available here")
    prediction: Any = refused("predicted outputs are not available here")
    moderation: Any = refused("moderation is not available here")
    functions: Any = refused("is no longer supported: use tools")
    function_call: Any = refused("is no longer supported: use tool_choice")
    store: Any = refused("answers can't be stored here", unless=(False,))

    def __attrs_post_init__(self) -> None:
        """Check what takes two parameters to judge."""
        if self.top_logprobs is not None and not self.logprobs:
            raise Fault("is allowed only when logprobs is true", place="top_logprobs")
        check_tool_choice(self.tool_choice, self.tools)
        self._check_constraints()

    def _check_constraints(self) -> None:
        given = [name for name in _CONSTRAINTS if getattr(self, name) is not None]
        if self.response_format is not None and self.response_format["type"] == "text":
            given.remove("response_format")
        if len(given) > 1:
            raise Fault(f"can't be combined with {given[0]}", place=given[1])


PARAMETERS: Final[Mapping[str, Parameter]] = parameters_of(ChatBody)
