"""What takes two attributes to judge, as JSON schemas: `RULES` of a class that is structured, whose `__attrs_post_init__` enforces it.

Each is a choice of what is right, not a denial of what is wrong: generators of test data can follow it.
"""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

NULL: Final[Schema] = {"type": "null"}
"""Not set; so is what is absent."""


def having(beside: Schema | None = None, /, **properties: Schema) -> Schema:
    """Admit objects that have these properties, and are as said `beside`."""
    others = {} if beside is None else beside["properties"]
    return {"properties": {**others, **properties}, "required": list(properties)}


def without(*names: str) -> Schema:
    """Admit objects that don't set any of these."""
    return {"properties": dict.fromkeys(names, NULL)}


def needs(name: str, other: Schema, *, unless: Schema = NULL) -> Schema:
    """Admit `name`, beyond what `unless` admits, only in objects that are as `other` says too."""
    return {"anyOf": [{"properties": {name: unless}}, other]}


def at_most_one(unset: Mapping[str, Schema]) -> Schema:
    """Admit objects in which all of these but one are as said here."""
    return {
        "anyOf": [
            {"properties": {other: schema for other, schema in unset.items() if other != name}}
            for name in unset
        ]
    }
