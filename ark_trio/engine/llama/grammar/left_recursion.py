"""Rules that begin with themselves: who reads a text from left to right, as llama.cpp does, never comes past their beginning."""

from typing import assert_never

from ark_trio.engine.llama.grammar.expression import (
    Char,
    Choice,
    Expression,
    Ref,
    Repeat,
    Row,
    Rules,
    Text,
    is_maybe_empty,
    maybe_empty,
)


def left_recursive(rules: Rules) -> str | None:
    """Return a rule that may begin with itself, directly or by others; every rule that is named must be there."""
    empty = maybe_empty(rules)
    first = {name: _first(rule, empty) for name, rule in rules.items()}
    for name in rules:
        reached, ahead = set[str](), set(first[name])
        while ahead:
            reached |= ahead
            ahead = set().union(*(first[other] for other in ahead)) - reached
        if name in reached:
            return name
    return None


def _first(item: Expression, empty: frozenset[str]) -> set[str]:
    """Return the rules that a match may begin with."""
    match item:
        case Text() | Char():
            return set()
        case Row(items):
            found = set[str]()
            for each in items:
                found |= _first(each, empty)
                if not is_maybe_empty(each, empty):
                    break
            return found
        case Choice(items):
            return set().union(*(_first(each, empty) for each in items))
        case Repeat(inner):
            return _first(inner, empty)
        case Ref(name):
            return {name}
        case _:
            assert_never(item)
