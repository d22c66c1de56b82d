"""Whether no value can be valid under two of several schemas: then exactly one of them is the same as any of them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import orjson

from ark_trio.engine.llama.grammar.keywords import json_type

_MAX_HOPS = 16

Resolve = Callable[[Any], Any]


def all_disjoint(schemas: Sequence[Any], resolve: Resolve) -> bool:
    """Whether each two of `schemas` surely exclude each other. `resolve` follows a `$ref`."""
    followed = [_followed(schema, resolve) for schema in schemas]
    return all(
        isinstance(one, Mapping) and isinstance(other, Mapping) and _disjoint(one, other, resolve)
        for one, other in combinations(followed, 2)
    )


def _followed(schema: Any, resolve: Resolve) -> Any:
    for _ in range(_MAX_HOPS):
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            return schema
        schema = resolve(schema["$ref"])
    return None


def _disjoint(one: Mapping[str, Any], other: Mapping[str, Any], resolve: Resolve) -> bool:
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return values.isdisjoint(others)
    types, other_types = _types(one), _types(other)
    if types is not None and other_types is not None and types.isdisjoint(other_types):
        return True
    if types != {"object"} or other_types != {"object"}:
        return False
    return any(
        _told_apart(one, other, name, resolve)
        for name in set(_required(one)) & set(_required(other))
    )


def _told_apart(
    one: Mapping[str, Any], other: Mapping[str, Any], name: str, resolve: Resolve
) -> bool:
    """Whether a member that both must have can't be the same in both."""
    members = [
        _followed(schema.get("properties", {}).get(name), resolve) for schema in (one, other)
    ]
    found = [_values(member) if isinstance(member, Mapping) else None for member in members]
    return found[0] is not None and found[1] is not None and found[0].isdisjoint(found[1])


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required", [])
    return (
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    )


def _values(schema: Mapping[str, Any]) -> frozenset[bytes] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(map(orjson.dumps, values)) if isinstance(values, list) else None


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        found = {json_type(value) for value in values}
    elif "type" in schema:
        types = schema["type"]
        found = set(types) if isinstance(types, list) else {types}
    else:
        return None
    # An integer is a number too.
    return found | {"integer"} if "number" in found else found
