"""JSON schemas of the classes that bodies are structured into, and of those that describe answers.

A class gives the schema that `structure` enforces: its attributes' types, `BOUNDS`, `SHAPE` where the JSON differs from the
attribute, and its `RULES` (see `rules`). Source: JSON Schema 2020-12, the dialect of OpenAPI 3.1.
"""

import builtins
import types
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any, Final, get_args, get_origin

import attrs

from ark_trio.protocol.parameter import PARAMETER, Parameter, Treatment
from ark_trio.protocol.structure import BOUNDS, KIND, SHAPE, Bounds

Schema = dict[str, Any]

PREFIX: Final = "#/components/schemas/"
_PLAIN: Final[Mapping[Any, Schema]] = {
    Any: {},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    float: {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38},
    None: {"type": "null"},
    NoneType: {"type": "null"},
}


class Schemas:
    """Collects the schemas of classes under their names."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type; a class's is a reference, and a schema is its own."""
        if isinstance(kind, dict):
            return kind
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        return self._reference(kind) if attrs.has(kind) else self._generic(kind)

    def _generic(self, kind: Any) -> Schema:
        arguments = get_args(kind)
        match get_origin(kind):
            case typing.Annotated:  # NOT_EMPTY
                return {**self.of(arguments[0]), "minItems": 1}
            case typing.Literal:
                return {"type": "string", "enum": list(arguments)}
            case builtins.tuple:
                return {"type": "array", "items": self.of(arguments[0])}
            case builtins.dict:
                return {"type": "object"}
            case typing.Union | types.UnionType:
                return _any_of([self.of(argument) for argument in arguments])
            case _:
                raise TypeError(f"no schema for {kind}")

    def _reference(self, kind: type) -> Schema:
        name = kind.__name__
        if name not in self.components:
            self.components[name] = {}  # a class may hold itself
            self.components[name] = self._object(kind)
        return {"$ref": PREFIX + name}

    def _object(self, kind: type) -> Schema:
        attributes = attrs.fields(kind)
        schema: Schema = {
            "type": "object",
            "description": (kind.__doc__ or "").split("\n", maxsplit=1)[0],
            "properties": {each.name: self._property(each) for each in attributes},
        }
        required = [
            each.name
            for each in attributes
            if each.default is attrs.NOTHING or KIND in each.metadata
        ]
        if required:
            schema["required"] = required
        return schema | getattr(kind, "RULES", {})

    def _property(self, attribute: "attrs.Attribute[Any]") -> Schema:
        parameter: Parameter | None = attribute.metadata.get(PARAMETER)
        if parameter is not None and parameter.treatment is Treatment.REFUSED:
            return _refused(parameter)
        shape = attribute.metadata.get(SHAPE)
        schema = self.of(attribute.type if shape is None else shape)
        bounds = attribute.metadata.get(BOUNDS)
        if bounds is not None:
            schema = _bounded(schema, bounds)
        return schema if parameter is None else _described(schema, parameter)


def _described(schema: Schema, parameter: Parameter) -> Schema:
    words = ": ".join(filter(None, (parameter.treatment.value, parameter.note)))
    return {**schema, "description": words}


def _refused(parameter: Parameter) -> Schema:
    return {
        "enum": [None, *parameter.harmless],
        "description": f"refused: {parameter.note}",
    }


def _any_of(options: list[Schema]) -> Schema:
    """Return a union; plain types side by side become one with several names."""
    options = [each for option in options for each in option.get("anyOf", [option])]
    *others, last = options
    if last == {"type": "null"} and len(others) == 1 and isinstance(others[0].get("type"), str):
        (only,) = others
        merged = {**only, "type": [only["type"], "null"]}
        if "enum" in only:
            merged["enum"] = [*only["enum"], None]
        return merged
    return {"anyOf": options}


def _bounded(schema: Schema, bounds: Bounds) -> Schema:
    limits = {
        "minimum": bounds.minimum,
        "maximum": bounds.maximum,
        "exclusiveMinimum": bounds.above,
    }
    bounded = {**schema, **{name: limit for name, limit in limits.items() if limit is not None}}
    if bounds.above is not None:
        del bounded["minimum"]
    return bounded
