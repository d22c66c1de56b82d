"""What the text of an answer must look like, from a request's inputs to a grammar that llama.cpp reads."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ark_trio.engine.llama.grammar.expression import Ref, Rules, Text, choice, to_gbnf
from ark_trio.engine.llama.grammar.gbnf import check_gbnf
from ark_trio.engine.llama.grammar.json_text import BASE
from ark_trio.engine.llama.grammar.pattern import parse_pattern
from ark_trio.engine.llama.grammar.schema import schema_rules
from ark_trio.engine.llama.grammar.writer import Unsupported
from ark_trio.engine.llama.readers import expect_object, in_order
from ark_trio.errors import InvalidRequest

_MAX_GRAMMAR = 256 << 10
_MAX_PARENTHESES = 200
"""Depth of a client's own grammar: llama.cpp reads it by recursion, on a thread's stack."""

_IN_STRUCTURED = {
    "json": "guided_json",
    "regex": "guided_regex",
    "choice": "guided_choice",
    "grammar": "guided_grammar",
}

_ORDER = ("response_format", "structured_outputs", *_IN_STRUCTURED.values())
KEYS = frozenset(_ORDER)
"""Inputs that constrain the text."""


@frozen
class Constraint:
    """One constraint: rules of ours, of which `answer` is the text, or a client's own grammar."""

    param: str
    rules: Rules | None = None
    own: str = ""

    def gbnf(self) -> str:
        """Return it as llama.cpp reads it."""
        if self.rules is None:
            return self.own
        return to_gbnf({"root": Ref("answer"), **self.rules})


def read_constraint(inputs: Mapping[str, Any]) -> Constraint | None:
    """Return what the inputs ask for, if anything.

    Raises:
        InvalidRequest: it is malformed, can't be held to, or can't be satisfied; the text says why.
    """
    found: list[Constraint] = []
    for key in _ORDER:
        if inputs.get(key) is None:
            continue
        name, asked = (
            _from_structured(inputs[key]) if key == "structured_outputs" else (key, inputs[key])
        )
        try:
            made = _READERS[name](name, asked)
        except Unsupported as error:
            raise InvalidRequest(f"{key}: {error}.", param=key) from error
        if isinstance(made, str):
            found.append(Constraint(key, own=made))
        elif made is not None:
            found.append(Constraint(key, made))
    if len(found) > 1:
        text = f"{found[1].param} can't be combined with {found[0].param}."
        raise InvalidRequest(text, param=found[1].param)
    return found[0] if found else None


def _from_structured(value: Any) -> tuple[str, Any]:
    given = [
        (key, item)
        for key, item in (value.items() if isinstance(value, dict) else ())
        if item not in (None, False)
    ]
    if len(given) == 1 and given[0] == ("json_object", True):
        return "response_format", {"type": "json_object"}
    if len(given) != 1 or given[0][0] not in _IN_STRUCTURED:
        names = ", ".join((*_IN_STRUCTURED, "json_object"))
        text = f"structured_outputs must have one of {names}."
        raise InvalidRequest(text, param="structured_outputs")
    return _IN_STRUCTURED[given[0][0]], given[0][1]


def _format(key: str, value: Any) -> Rules | None:
    kind = expect_object(key, value).get("type")
    match kind:
        case "text":
            return None
        case "json_object":
            return {"answer": Ref("object"), **BASE}
        case "json_schema":
            place = f"{key}.json_schema"
            given = expect_object(place, value.get("json_schema"))
            return _schema(f"{place}.schema", given.get("schema"))
    raise InvalidRequest(f"{key}.type must be text, json_object or json_schema.", param=key)


def _schema(key: str, value: Any) -> Rules:
    return schema_rules(in_order(expect_object(key, value)), prefix="answer")


def _pattern(_key: str, value: Any) -> Rules:
    if not isinstance(value, str):
        raise Unsupported("it must be a regular expression")
    return {"answer": parse_pattern(value)}


def _choice(_key: str, value: Any) -> Rules:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise Unsupported("it must be a list of at least one text")
    return {"answer": choice(map(Text, value))}


def _grammar(_key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unsupported("it must be a grammar")
    if len(value) > _MAX_GRAMMAR:
        raise Unsupported(f"it is longer than {_MAX_GRAMMAR} characters")
    depth = 0
    for char in value:
        depth += (char == "(") - (char == ")" and depth > 0)
        if depth > _MAX_PARENTHESES:
            raise Unsupported("it is nested too deeply")
    check_gbnf(value)
    return value


_READERS: Mapping[str, Callable[[str, Any], Rules | str | None]] = {
    "response_format": _format,
    "guided_json": _schema,
    "guided_regex": _pattern,
    "guided_choice": _choice,
    "guided_grammar": _grammar,
}
