"""JSON schemas of the kinds that the engine holds output to."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "ab", "b", "name", "größe", 'qu"ote', ""])
COUNTS = st.integers(0, 3)
SMALL = st.integers(-120, 120)
DECIMALS = st.decimals(-50, 50, places=2).map(float)
VALUES = st.none() | st.booleans() | SMALL | DECIMALS | st.text(max_size=3) | st.just({"k": [1]})


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of the keywords."""
    return st.fixed_dictionaries({}, optional=keywords)


def typed(name: str, **keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return some(**keywords).map(lambda found: {"type": name, **found})


NUMBERS = {"minimum": DECIMALS, "exclusiveMaximum": DECIMALS}
LEAVES = (
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, True, False, {}])
    | typed("integer", minimum=SMALL, maximum=SMALL, exclusiveMinimum=SMALL)
    | typed("number", maximum=DECIMALS, exclusiveMinimum=DECIMALS)
    | typed("number", **NUMBERS)
    | typed("string", minLength=COUNTS, maxLength=COUNTS)
    | st.sampled_from(["^[a-f]{2}$", "x+", r"^\d+\.\d$", '^"']).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    )
    | st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values})
    | VALUES.map(lambda value: {"const": value})
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        typed(
            "object",
            properties=st.dictionaries(NAMES, inner, max_size=4),
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=st.booleans() | inner,
        )
        | typed(
            "array",
            items=inner,
            prefixItems=st.lists(inner, min_size=1, max_size=3),
            minItems=COUNTS,
            maxItems=COUNTS,
        )
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    )


SCHEMAS = st.recursive(LEAVES, _nested, max_leaves=6)
