"""Contradictions in schemas that others make grammars of."""

from typing import Any

import pytest

from ark_trio.engine.llama.grammar.bounds import contradictions


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"minLength": 2, "maxLength": 1}, "the schema has minLength above its maxLength"),
        (
            {"properties": {"a": {"items": {"minItems": 3, "maxItems": 2.0}}}},
            "the schema at #/properties/a/items has minItems above its maxItems",
        ),
        (
            {"anyOf": [{}, {"pattern": "^(x{2}y){3, 1}$"}]},
            "the schema at #/anyOf/1 has a pattern that repeats something more often than it may",
        ),
    ],
)
def test_what_contradicts_itself_is_found_with_its_place(schema: Any, why: str):
    assert list(contradictions(schema)) == [why]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {"minLength": 2, "maxLength": 2, "pattern": "a{1,3}b{2}c{2,}"},
        {"properties": {"minLength": {"type": "integer"}, "maxLength": {"type": "integer"}}},
        {"enum": [{"minLength": 2, "maxLength": 1}], "minLength": "2", "maxLength": 1},
    ],
)
def test_what_does_not_is_left_alone(schema: Any):
    assert list(contradictions(schema)) == []
