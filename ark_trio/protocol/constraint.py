"""What an answer's text must look like: a schema, a pattern, a choice or a grammar, in each of its spellings.

`structured_outputs` is today's spelling of servers beside OpenAI, `guided_…` the older one. Engines get what the contract has:
`response_format` and `guided_grammar`; it has no pattern, so `guided_regex` goes by its own name.
Source: docs/engine.md, "Request inputs".
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import orjson
from attrs import field, frozen

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.items import expect_object
from ark_trio.protocol.rules import Schema, having
from ark_trio.protocol.structure import NOT_EMPTY, SHAPE, STRUCTURE, structure


def parse_schema(value: Any) -> dict[str, Any] | None:
    """Return a JSON schema; some clients send it as text."""
    if not isinstance(value, str):
        return None if value is None else expect_object(value)
    try:
        schema = orjson.loads(value)
    except orjson.JSONDecodeError:
        schema = None
    if not isinstance(schema, dict):
        raise unexpected("a JSON schema", value)
    return schema


def parse_choice(value: Any) -> tuple[str, ...] | None:
    """Return the texts of which the answer must be one."""
    if value is None:
        return None
    choices = structure(value, tuple[str, ...])
    if not choices:
        raise Fault("expected at least one text, got an empty list")
    return choices


_UNSET: Final[Schema] = {"enum": [None, False]}


def _only(name: str, kind: Schema) -> Schema:
    """Admit objects in which `name` is set and none of the others."""
    return having(**{name: kind}) | {
        "properties": {name: kind} | {other: _UNSET for other in _KINDS if other != name}
    }


_KINDS: Final[Mapping[str, Schema]] = {
    "json": {"type": ["object", "string"]},
    "regex": {"type": "string"},
    "choice": {"type": "array"},
    "grammar": {"type": "string"},
    "json_object": {"const": True},
}


@frozen(kw_only=True)
class StructuredOutputs:
    """One constraint on the answer's text."""

    RULES: ClassVar = {
        "anyOf": [_only(name, kind) for name, kind in _KINDS.items()],
        "additionalProperties": _UNSET,
    }

    json: dict[str, Any] | None = field(
        default=None, metadata={STRUCTURE: parse_schema, SHAPE: dict[str, Any] | str | None}
    )
    """A JSON schema."""
    regex: str | None = None
    choice: tuple[str, ...] | None = field(
        default=None,
        metadata={STRUCTURE: parse_choice, SHAPE: Annotated[tuple[str, ...], NOT_EMPTY] | None},
    )
    grammar: str | None = None
    """GBNF or EBNF."""
    json_object: bool | None = None
    """Any JSON object."""

    def __attrs_post_init__(self) -> None:
        """Refuse several constraints, and none."""
        if len(self.given) != 1:
            raise Fault("expected one of json, regex, choice, grammar and json_object")

    @property
    def given(self) -> tuple[str, ...]:
        """The constraints that are set."""
        return tuple(name for name in _KINDS if getattr(self, name) not in (None, False))


def parse_structured_outputs(value: Any) -> StructuredOutputs | None:
    """Check `structured_outputs`. A constraint that is not known is refused: without it the answer would be another."""
    if value is None:
        return None
    for name, setting in expect_object(value).items():
        if name not in _KINDS and setting not in (None, False):
            raise Fault("is not available here", place=name)
    return structure(value, StructuredOutputs)


def structured_inputs(outputs: StructuredOutputs) -> Mapping[str, Any]:
    """Return the engine's inputs for a constraint."""
    (name,) = outputs.given
    value = getattr(outputs, name)
    match name:
        case "json":
            return schema_inputs(value)
        case "choice":
            return choice_inputs(value)
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case _:
            return {f"guided_{name}": value}


def schema_inputs(schema: dict[str, Any]) -> Mapping[str, Any]:
    """Return the engine's inputs for a JSON schema."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"response_format": form}


def choice_inputs(choices: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the engine's inputs for a choice of texts: a grammar with one rule."""
    return {"guided_grammar": "root ::= " + " | ".join(map(_literal, choices))}


def _literal(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""Source: llama.cpp, grammars/README.md."""
