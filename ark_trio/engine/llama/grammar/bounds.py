"""Bounds that contradict each other, found wherever they stand in a schema.

llama.cpp makes grammars of tools' schemas itself where the model's template knows tools, and these keep it busy until the
memory is used up.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

TIMES = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(?:(,)[ \t]*([0-9]{1,9})?[ \t]*)?\}")
"""How regular expressions and grammars say how often: {2}, {2,}, {2,5}."""

_PAIRS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_VALUES = frozenset({"const", "enum", "default", "examples"})


def is_inverted(times: re.Match[str]) -> bool:
    """Whether a match of `TIMES` asks for more than it allows."""
    return times[3] is not None and int(times[1]) > int(times[3])


def contradictions(schema: Any, place: str = "") -> Iterator[str]:
    """Yield what contradicts itself in a schema, with its place as a JSON pointer."""
    if isinstance(schema, list):
        for position, each in enumerate(schema):
            yield from contradictions(each, f"{place}/{position}")
    if isinstance(schema, dict):
        where = f"the schema at #{place}" if place else "the schema"
        for what in _own(schema):
            yield f"{where} has {what}"
        for key, value in schema.items():
            if key not in _VALUES:
                yield from contradictions(value, f"{place}/{key}")


def _own(schema: Mapping[str, Any]) -> Iterator[str]:
    for low, high in _PAIRS:
        least, most = schema.get(low), schema.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield f"{low} above its {high}"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and any(map(is_inverted, TIMES.finditer(pattern))):
        yield "a pattern that repeats something more often than it may"
