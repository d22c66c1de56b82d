"""What bodies of all completion endpoints have in common: where the answer goes, how it is sampled, when it ends.

The classes of the endpoints inherit from the one here: the same forty declarations twice would differ before long.
"""
# ruff: noqa: RUF009 - the calls in the defaults declare attrs fields

from operator import attrgetter
from typing import Annotated, Any, Final

from attrs import NOTHING, define, frozen

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
from ark_trio.protocol.items import each, each_entry, expect_object, expect_text
from ark_trio.protocol.parameter import acted_on, forwarded, no_effect
from ark_trio.protocol.rules import NULL, at_most_one, having
from ark_trio.protocol.structure import NOT_EMPTY, TOKENS, Bounds, parse_tokens, structure
from ark_trio.protocol.tool import ResponseFormat

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
_constraints_of: Final = attrgetter(*_CONSTRAINTS)

CONSTRAINED_ONCE: Final = at_most_one(
    dict.fromkeys(_CONSTRAINTS, NULL)
    | {"response_format": {"anyOf": [NULL, having(type={"const": "text"})]}}
)
MODEL_SHAPE: Final = {"type": "string", "minLength": 1}
_STOP: Final = {"type": "string", "minLength": 1}
_STOPS: Final = {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": _MAX_STOPS}, NULL]}
_MAX_PAIRS, _MAX_KEY, _MAX_TEXT = 16, 64, 512
"""Of metadata. Source: OpenAI's API description 2.3.0, Metadata."""
_METADATA: Final = {
    "type": ["object", "null"],
    "maxProperties": _MAX_PAIRS,
    "propertyNames": {"maxLength": _MAX_KEY},
    "additionalProperties": {"type": "string", "maxLength": _MAX_TEXT},
}
_BIASES: Final = {
    "type": ["object", "null"],
    "propertyNames": {"pattern": "^-?[0-9]{1,10}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}


def parse_model(value: Any) -> str:
    """Check a model's name."""
    if not expect_text(value):
        raise Fault("expected the name of a model, got an empty text")
    return str(value)


def _stops(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _stop(value)
    if not isinstance(value, list):
        raise unexpected("text or a list of texts", value)
    stops = each(value, _stop)
    if len(stops) > _MAX_STOPS:
        raise Fault(f"expected at most {_MAX_STOPS} texts, got {len(stops)}")
    return stops or None


def _stop(value: Any) -> str:
    if not expect_text(value):
        raise unexpected("text that an answer can end at", value)
    return str(value)


def _logit_bias(value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    return each_entry(value, lambda key, bias: (_token_id(key), _bias(bias))) or None


def _token_id(key: str) -> int:
    # int() alone would take " 1", "1_0" and other scripts' digits, and refuse thousands of digits in its own words.
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(2**31))):
        raise Fault("expected a token id, an integer, as the key")
    return int(key)


def _response_format(value: Any) -> Any:
    """Check it and hand it on as it stands; text is what every answer is."""
    if value is None:
        return None
    return None if structure(value, ResponseFormat).type == "text" else value


def _bias(value: Any) -> float:
    number = structure(value, float)
    if not _BIAS.admit(number):
        raise unexpected(str(_BIAS), value)
    return number


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if len(expect_object(value)) > _MAX_PAIRS:
        raise Fault(f"expected at most {_MAX_PAIRS} pairs, got {len(value)}")
    return each_entry(value, _pair)


def _pair(key: str, text: Any) -> tuple[str, str]:
    if len(key) > _MAX_KEY:
        raise Fault(f"expected a key of at most {_MAX_KEY} characters, got {len(key)}")
    if len(expect_text(text)) > _MAX_TEXT:
        raise Fault(f"expected at most {_MAX_TEXT} characters, got {len(text)}")
    return key, text


@frozen(kw_only=True)
class StreamOptions:
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    """One more chunk at the end, with the totals."""
    continuous_usage_stats: bool | None = None
    """The totals so far on every chunk."""
    include_obfuscation: bool | None = None
    """Without effect: chunks are never padded here."""


@define(kw_only=True)
class SamplingBody:
    """The common part of a body. None: the client did not set it.

    Not frozen, but no less a value: to set sixty attributes of a frozen class takes 5 µs.
    """

    model: str = acted_on(
        "chooses the decoders", default=NOTHING, parse=parse_model, shape=MODEL_SHAPE
    )
    stream: bool | None = acted_on("answer as server-sent events")
    stream_options: StreamOptions | None = acted_on("ignored unless stream is true")

    max_tokens: int | None = forwarded("int64_", key="max_new_tokens", bounds=_POSITIVE)
    n: int | None = forwarded("int64_", bounds=Bounds(minimum=1, maximum=MAX_CHOICES))
    seed: int | None = forwarded("int64_")
    temperature: float | None = forwarded("float_", bounds=Bounds(minimum=0, maximum=2))
    top_p: float | None = forwarded("float_", bounds=_UNIT)
    presence_penalty: float | None = forwarded("float_", bounds=_PENALTY)
    frequency_penalty: float | None = forwarded("float_", bounds=_PENALTY)
    stop: str | tuple[str, ...] | None = forwarded(
        "string_", "string_list", parse=_stops, shape=_STOPS, note="none may be empty"
    )
    logit_bias: dict[int, float] | None = forwarded("int64_dict", parse=_logit_bias, shape=_BIASES)

    top_k: int | None = forwarded("int64_", bounds=Bounds(minimum=-1))
    min_p: float | None = forwarded("float_", bounds=_UNIT)
    repetition_penalty: float | None = forwarded("float_", bounds=Bounds(above=0))
    length_penalty: float | None = forwarded("float_")
    min_tokens: int | None = forwarded("int64_", bounds=Bounds(minimum=0))
    max_prompt_tokens: int | None = forwarded("int64_", bounds=_POSITIVE)
    stop_token_ids: tuple[int, ...] | None = forwarded(
        "int64_list",
        "value_list",
        parse=lambda value: None if value is None else parse_tokens(value),
        shape={"anyOf": [TOKENS, NULL]},
    )
    include_stop_str_in_output: bool | None = forwarded("bool_")
    ignore_eos: bool | None = forwarded("bool_")
    skip_special_tokens: bool | None = forwarded("bool_")
    response_format: Any = forwarded(
        "struct_",
        parse=_response_format,
        shape=ResponseFormat | None,
        note="a json_schema has a name, of the letters that tools' names have",
    )
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
        shape=dict[str, Any] | str | None,
        note="as a json_schema; text that spells one is taken too",
    )
    guided_regex: str | None = forwarded("string_")
    guided_choice: tuple[str, ...] | None = forwarded(
        "string_",
        key="guided_grammar",
        spread=choice_inputs,
        parse=parse_choice,
        shape=Annotated[tuple[str, ...], NOT_EMPTY] | None,
        note="as a grammar with one rule",
    )
    guided_grammar: str | None = forwarded("string_", note="GBNF or EBNF")
    priority: int | None = forwarded("int64_", note="above 0 it is served after others here too")
    cache_salt: str | None = forwarded("string_")

    metadata: dict[str, str] | None = no_effect(
        "kept by nobody here; checked as OpenAI does: up to 16 texts of 512 characters",
        parse=_metadata,
        shape=_METADATA,
    )
    user: str | None = no_effect("identifies the end user to a provider")
    request_id: str | None = no_effect("the header x-request-id names a request")

    @property
    def batch(self) -> bool:
        """Whether the client says that others may go first. Source: vLLM, where a lower priority is served earlier."""
        return (self.priority or 0) > 0

    def check_constraints(self) -> None:
        """Raise a Fault if the answer's text is constrained in two ways."""
        given = [
            name
            for name, value in zip(_CONSTRAINTS, _constraints_of(self), strict=True)
            if value is not None
        ]
        if len(given) > 1:
            raise Fault(f"can't be combined with {given[0]}", place=given[1])
