"""Repeating what may be empty, so that a text is matched in few ways: `(a?b?){0,30}` as `(ab?|b){0,30}`.

llama.cpp follows every way. Of the first form there are hundreds for one letter, their number to the power of a token's
length for a token: minutes. What is allowed stays the same.
"""

from typing import Final

from ark_trio.engine.llama.grammar.expression import (
    Choice,
    Expression,
    Repeat,
    Row,
    choice,
    is_maybe_empty,
    row,
)

_MOST_PARTS: Final = 1024
"""Of a row that is written so: it grows with the square. A longer one stays as it is."""


def repeat(item: Expression, least: int, most: int | None) -> Expression:
    """Return what matches `item`, which refers to no rule that may be empty, so many times."""
    inside = _without_empty(item) if _may_be_empty(item) and most != 0 else None
    return Repeat(item, least, most) if inside is None else Repeat(inside, 0, most)


def _without_empty(item: Expression) -> Expression | None:
    """Return what matches the same but the empty text; None: not in a few words."""
    if not _may_be_empty(item):
        return item
    match item:
        case Repeat(inner, 0, most) if most != 0 and not _may_be_empty(inner):
            return Repeat(inner, 1, most)
        case Choice(items):
            kept = [_without_empty(each) for each in items]
            return None if None in kept else choice(filter(None, kept))
        case Row(items) if items and len(items) * _parts(item) <= _MOST_PARTS:
            begun = [_without_empty(each) for each in items]
            if None not in begun:
                rests = (items[at + 1 :] for at in range(len(items)))
                ways = zip(begun, rests, strict=True)
                return choice(row(first, *rest) for first, rest in ways if first is not None)
    return None


def _parts(item: Expression) -> int:
    match item:
        case Row(items) | Choice(items):
            return 1 + sum(map(_parts, items))
        case Repeat(inner):
            return 1 + _parts(inner)
    return 1


def _may_be_empty(item: Expression) -> bool:
    return is_maybe_empty(item, frozenset())
