"""JSON schemas: every text that the grammar allows is valid, by another library's judgement; what isn't held to is refused."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ark_trio.engine.llama.grammar.schema import schema_rules
from ark_trio.engine.llama.grammar.writer import Unsupported
from tests.support.grammar import draw_text
from tests.support.schemas import SCHEMAS


def check_valid(schema: Any, text: str) -> None:
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        orjson.loads(text)
    )


@settings(max_examples=60)
@given(st.data(), SCHEMAS)
def test_what_the_grammar_allows_is_valid(data: st.DataObject, schema: Any):
    try:
        rules = schema_rules(schema)
    except Unsupported:
        # A generated schema may contradict itself; then no value may be valid.
        value: Any = data.draw(st.none() | st.integers() | st.text() | st.just([]) | st.just({}))
        assert not Draft202012Validator(schema).is_valid(value), (schema, value)
        return
    check_valid(schema, draw_text(data, rules, "schema"))


NODE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer", "minimum": 1, "maximum": 12},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SPECIAL: list[Any] = [
    NODE,
    True,
    {},
    {"type": "object"},
    {"title": "x", "description": "y", "default": 1},
    {"type": "object", "properties": {}, "additionalProperties": {"type": "boolean"}},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "ab": {"type": "integer"}, "": {"type": "null"}},
        "additionalProperties": {"type": "string"},
    },
    {"type": "object", "properties": {"x" * 40: {"const": 1}}, "additionalProperties": True},
    {"type": "object", "required": ["a", "b"]},
    {"properties": {"a": True}, "required": ["a", "z"]},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}], "maxItems": 1},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": {"type": "string", "maxLength": 0}, "minItems": 2, "maxItems": 2},
    {"type": ["string", "null", "number"], "maxLength": 3, "maximum": 2},
    {"type": ["string", "null"], "enum": ["a", None, 3]},
    {"type": "number", "enum": [1, 2.5, "x"]},
    {"const": {"a": [1, "ü", None]}},
    {"enum": ["\U0001f600 or \U000d074b"]},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": -1},
    {"type": "integer", "minimum": 0.5, "maximum": 10**30},
    {"type": "string", "pattern": '^"[\\\\"]+$'},
    {"type": "string", "pattern": "b"},
    *({"type": "string", "format": form} for form in ("date", "time", "date-time", "uuid", "ipv4")),
    {"type": "string", "format": "email"},
    {"type": "string", "format": "something-else", "maxLength": 2},
    {"allOf": [{"type": "boolean"}], "description": "as pydantic writes it"},
    {"oneOf": [{"type": "integer"}, {"type": "string"}, {"const": None}]},
    {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]}
            for kind in ("cat", "dog")
        ]
    },
    {"type": "object", "properties": {"a": {"enum": [1]}, "b": False, "c": {"$ref": "#"}}},
]


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("schema", SPECIAL, ids=range(len(SPECIAL)))
def test_of_each_kind_only_valid_texts_are_allowed(schema: Any, data: st.DataObject):
    check_valid(schema, draw_text(data, schema_rules(schema), "schema"))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "integer", "multipleOf": 3}, "multipleOf"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"if": {}, "then": {}}, "if"),
        ({"allOf": [{}, {}]}, "several"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "overlap"),
        ({"oneOf": [{"type": "object"}, {"type": "object"}]}, "overlap"),
        ({"oneOf": [True, {"type": "null"}]}, "overlap"),
        (
            # What is no object has no kind, and satisfies both.
            {"oneOf": [{"properties": {"k": {"const": k}}, "required": ["k"]} for k in "ab"]},
            "overlap",
        ),
        ({"anyOf": [{"type": "integer"}], "minimum": 3}, "minimum beside anyOf"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}, "type": "string"}, "type beside"),
        ({"enum": ["a"], "maxLength": 1}, "maxLength beside enum"),
        ({"$ref": "https://example.invalid/s"}, "another document"),
        ({"$ref": "#/$defs/a"}, "not there"),
        ({"type": "string", "pattern": "(?=a)"}, "groups"),
        ({"type": "string", "pattern": "a", "minLength": 3}, "length beside"),
        ({"type": "string", "pattern": "a", "format": "date"}, "both"),
        ({"type": "string", "minLength": 5000}, "2000"),
        ({"type": "string", "minLength": -1}, "no count"),
        ({"type": "number", "minimum": "1"}, "no number"),
        ({"type": "integer", "minimum": 10**20}, "too far"),
        ({"type": "number", "minimum": 0.12345678901, "maximum": 1}, "too many digits"),
        ({"type": "colour"}, "names no JSON type"),
        ({"type": []}, "names no JSON type"),
        ({"properties": []}, "another form"),
        ({"required": [1]}, "another form"),
        ({"type": "array", "prefixItems": {}}, "no list"),
        ({"enum": []}, "at least one"),
        ({"anyOf": []}, "no list of schemas"),
        ({"properties": {"a": 3}}, "at #/properties/a is no schema"),
        # Impossible:
        (False, "false"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum above"),
        ({"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 3}, "minimum above"),
        ({"type": "number", "minimum": 3, "maximum": 2}, "minimum above"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength above"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems above"),
        ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "minItems above"),
        ({"type": "string", "enum": [1, 2]}, "type excludes"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "requires a"),
        ({"properties": {"a": False}, "required": ["a"]}, "at #/properties/a is false"),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite value"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "no finite value"),
    ],
)
def test_what_cant_be_held_to_or_satisfied_is_refused_saying_what(schema: Any, why: str):
    with pytest.raises(Unsupported, match=why):
        schema_rules(schema)


EDGES = st.decimals(-3, 3, places=1) | st.integers(-9, 9).flatmap(
    lambda digits: st.integers(0, 8).map(lambda places: Decimal(digits).scaleb(-places))
)
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


@settings(max_examples=300)
@given(st.data(), st.fixed_dictionaries({}, optional=dict.fromkeys(BOUNDS, EDGES)))
@example(None, {"exclusiveMinimum": Decimal(0), "maximum": Decimal("0.001")})
@example(None, {"exclusiveMinimum": Decimal(0), "exclusiveMaximum": Decimal("1e-8")})
def test_a_number_has_its_bounds_unless_nothing_is_between_them(
    data: st.DataObject | None, bounds: dict[str, Decimal]
):
    schema = {"type": "number", **{key: float(bound) for key, bound in bounds.items()}}
    low = max((bounds[key] for key in BOUNDS[:2] if key in bounds), default=Decimal("-inf"))
    high = min((bounds[key] for key in BOUNDS[2:] if key in bounds), default=Decimal("inf"))
    outside = {bounds[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in bounds}
    empty = low > high or (low == high and low in outside)
    if empty:
        with pytest.raises(Unsupported, match="above its"):
            schema_rules(schema)
        return
    rules = schema_rules(schema)
    if data is not None:
        check_valid(schema, draw_text(data, rules, "schema"))


def test_a_schema_without_end_is_refused():
    deep: Any = {"type": "null"}
    for _ in range(100):
        deep = {"type": "array", "items": deep}
    for schema in (deep, {"anyOf": [{"const": 1}] * 5000}):
        with pytest.raises(Unsupported, match="too large"):
            schema_rules(schema)
