"""JSON schemas as grammars: whatever matches the grammar is valid under the schema, or the schema is refused.

The grammar may be narrower than the schema: required members come first, and there are no more than it names unless it says
so. What a grammar can't hold output to is refused by its keyword, never ignored. Source: JSON Schema 2020-12.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Never

from attrs import define, field

from ark_trio.engine.llama.grammar.disjoint import all_disjoint
from ark_trio.engine.llama.grammar.expression import (
    NEVER,
    Expression,
    Ref,
    Rules,
    Text,
    choice,
    possible,
)
from ark_trio.engine.llama.grammar.json_text import BASE, literal
from ark_trio.engine.llama.grammar.keywords import ANNOTATIONS, BY_TYPE, TYPES, json_type
from ark_trio.engine.llama.grammar.schema_object import write_array, write_object
from ark_trio.engine.llama.grammar.schema_scalar import write_integer, write_number, write_string
from ark_trio.engine.llama.grammar.writer import Unsupported

Json = Any

_MAX_DEPTH: Final = 64
_MAX_SCHEMAS: Final = 4096


def schema_rules(schema: Json, *, prefix: str = "schema") -> Rules:
    """Return rules of which the one called `prefix` matches what is valid under `schema`.

    Raises:
        Unsupported: it can't be held to, or nothing is valid under it; the text says why and where.
    """
    writer = SchemaWriter(schema, prefix)
    writer.rules[prefix] = NEVER  # reserves the name, and the first place
    writer.rules[prefix] = writer.write(schema, "", 0)
    rules = {**writer.rules, **BASE}
    if prefix not in possible(rules):
        raise Unsupported(
            writer.contradictions[0] if writer.contradictions else "no finite value satisfies it"
        )
    return rules


@define
class SchemaWriter:
    """Writes one schema's rules. A place is a JSON pointer, for messages."""

    document: Json
    prefix: str
    rules: dict[str, Expression] = field(factory=dict)
    contradictions: list[str] = field(factory=list)
    _refs: dict[str, str] = field(factory=dict)
    _written: int = 0

    def write(self, schema: Json, place: str, depth: int) -> Expression:
        """Return what is valid under `schema`."""
        self._written += 1
        if depth > _MAX_DEPTH or self._written > _MAX_SCHEMAS:
            raise Unsupported("the schema is nested too deeply, or too large")
        if isinstance(schema, bool):
            return Ref("value") if schema else self.never(place, "is false: nothing satisfies it")
        if not isinstance(schema, dict):
            self.refuse(place, "is no schema")
        return self._object(schema, place, depth)

    def _object(self, schema: Mapping[str, Json], place: str, depth: int) -> Expression:
        for keyword, write in _COMBINING.items():
            if keyword in schema:
                self.check_alone(schema, keyword, place)
                return write(self, schema[keyword], f"{place}/{keyword}", depth)
        if "const" in schema:
            return self._one_of([schema["const"]], schema, place)
        if "enum" in schema:
            return self._one_of(schema["enum"], schema, place)
        return self._typed(schema, place, depth)

    def named(self, expression: Expression) -> Ref:
        """Make a rule of an expression that is used more than once."""
        name = f"{self.prefix}-{len(self.rules)}"
        self.rules[name] = expression
        return Ref(name)

    def never(self, place: str, why: str) -> Expression:
        """Note a contradiction; the schema is refused if it can't be avoided."""
        self.contradictions.append(f"{_at(place)} {why}")
        return NEVER

    def refuse(self, place: str, why: str) -> Never:
        """Refuse the schema."""
        raise Unsupported(f"{_at(place)} {why}")

    def check_alone(self, schema: Mapping[str, Json], keyword: str, place: str) -> None:
        """Refuse constraints beside a keyword that stands alone here."""
        for other in schema:
            if other != keyword and other in _CONSTRAINTS:
                self.refuse(place, f"has {other} beside {keyword}, which can't be combined here")

    def _typed(self, schema: Mapping[str, Json], place: str, depth: int) -> Expression:
        types = schema.get("type", _implied_type(schema))
        if types is None:
            self._check_known(schema, TYPES, place)
            return Ref("value")
        types = types if isinstance(types, list) else [types]
        if not types or not all(isinstance(each, str) and each in TYPES for each in types):
            self.refuse(f"{place}/type", "names no JSON type")
        self._check_known(schema, types, place)
        return choice(_WRITERS[each](self, schema, place, depth) for each in types)

    def _check_known(self, schema: Mapping[str, Json], types: Any, place: str) -> None:
        """Refuse a keyword that would constrain values of these types and isn't held to here."""
        handled = {keyword for each in types for keyword in BY_TYPE[each]}
        foreign = {keyword for each in TYPES if each not in types for keyword in BY_TYPE[each]}
        for keyword, value in schema.items():
            if keyword in ANNOTATIONS | handled | foreign or keyword == "type":
                continue
            if keyword in _CONSTRAINTS and value not in _WITHOUT_EFFECT.get(keyword, ()):
                self.refuse(place, f"has {keyword}, which output can't be held to here")

    def _one_of(self, values: Json, schema: Mapping[str, Json], place: str) -> Expression:
        if not isinstance(values, list) or not values:
            self.refuse(place, "has an enum that is no list of at least one value")
        keyword = "const" if "const" in schema else "enum"
        self.check_alone({key: schema[key] for key in schema if key != "type"}, keyword, place)
        types = schema.get("type")
        allowed = types if isinstance(types, list) else None if types is None else [types]
        kept = [value for value in values if allowed is None or _is_any(value, allowed)]
        if not kept:
            return self.never(place, "allows only values that its type excludes")
        return choice(map(literal, kept))

    def _any_of(self, options: Json, place: str, depth: int) -> Expression:
        if not isinstance(options, list) or not options:
            self.refuse(place, "is no list of schemas")
        written = [
            self.write(option, f"{place}/{number}", depth + 1)
            for number, option in enumerate(options)
        ]
        return choice(written)

    def _exactly_one(self, options: Json, place: str, depth: int) -> Expression:
        if not isinstance(options, list) or not all_disjoint(options, self.resolve):
            self.refuse(place, "has options that may overlap; use anyOf")
        return self._any_of(options, place, depth)

    def _all_of(self, options: Json, place: str, depth: int) -> Expression:
        if not isinstance(options, list) or len(options) != 1:
            self.refuse(place, "combines several schemas, which output can't be held to here")
        return self.write(options[0], f"{place}/0", depth + 1)

    def _reference(self, target: Json, _place: str, _depth: int) -> Expression:
        name = self._refs.get(target) if isinstance(target, str) else None
        if name is None:
            schema = self.resolve(target)
            name = self.named(NEVER).name
            self._refs[target] = name
            # A rule of its own: its depth counts from the top again.
            self.rules[name] = self.write(schema, target.removeprefix("#"), 0)
        return Ref(name)

    def resolve(self, target: Json) -> Json:
        """Return what a reference within the document points to."""
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            self.refuse("", "refers to another document")
        found = self.document
        for part in target.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                self.refuse("", f"refers to {target[:80]}, which is not there")
            found = found[key]
        return found


_Combining = Callable[[SchemaWriter, Json, str, int], Expression]
_COMBINING: Mapping[str, _Combining] = {
    "$ref": SchemaWriter._reference,  # noqa: SLF001 (its own)
    "anyOf": SchemaWriter._any_of,  # noqa: SLF001
    "oneOf": SchemaWriter._exactly_one,  # noqa: SLF001
    "allOf": SchemaWriter._all_of,  # noqa: SLF001
}

_WRITERS: Mapping[str, Callable[[SchemaWriter, Mapping[str, Json], str, int], Expression]] = {
    "object": write_object,
    "array": write_array,
    "string": write_string,
    "integer": write_integer,
    "number": write_number,
    "boolean": lambda *_: choice([Text("true"), Text("false")]),
    "null": lambda *_: Text("null"),
}

_WITHOUT_EFFECT: Mapping[str, tuple[Json, ...]] = {
    "uniqueItems": (False,),
    "minProperties": (0,),
    "not": (False,),
    "unevaluatedProperties": (True,),
    "unevaluatedItems": (True,),
    "patternProperties": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "propertyNames": (True, {}),
}

_CONSTRAINTS: Final = (
    frozenset(_COMBINING)
    | {"type", "const", "enum", "not", "if", "then", "else", "multipleOf", "uniqueItems"}
    | {"minProperties", "maxProperties", "patternProperties", "propertyNames", "contains"}
    | {"minContains", "maxContains", "dependentRequired", "dependentSchemas", "dependencies"}
    | {"unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"}
    | {keyword for keywords in BY_TYPE.values() for keyword in keywords}
)


def _implied_type(schema: Mapping[str, Json]) -> str | None:
    """Return the type that a schema without one speaks of; other types would be valid too, but surely aren't meant."""
    for name in TYPES:
        if any(keyword in schema for keyword in BY_TYPE[name]):
            return name
    return None


def _is_any(value: Json, types: list[Json]) -> bool:
    found = json_type(value)
    return found in types or (found == "integer" and "number" in types)


def _at(place: str) -> str:
    return f"the schema at #{place[:120]}" if place else "the schema"
