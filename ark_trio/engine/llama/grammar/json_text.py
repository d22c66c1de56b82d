"""JSON's own parts as grammar expressions: strings, keys, white space, and values of any kind."""

from collections.abc import Collection, Mapping

import orjson

from ark_trio.engine.llama.grammar.chars import ANY, CharSet, chars
from ark_trio.engine.llama.grammar.expression import (
    Char,
    Choice,
    Expression,
    Ref,
    Repeat,
    Text,
    choice,
    maybe,
    row,
)
from ark_trio.engine.llama.grammar.number import any_number

_SHORT_ESCAPES: Mapping[str, str] = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_PLAIN = ANY - CharSet([(0, 0x1F)]) - chars('"\\\x7f')
"""What stands for itself in a string. Only the short escapes are written: others could be half a character."""
_MAX_DEPTH = 24
_COMMON = "\uffff"

SPACE = Choice((Text(""), Text(" "), row(Text("\n"), Repeat(Char(chars(" \t")), 0, 20))))
COMMA = row(Text(","), Ref("space"))
COLON = row(Text(":"), Ref("space"))

BASE: Mapping[str, Expression] = {
    "space": SPACE,
    "char": choice([Char(_PLAIN), *map(Text, _SHORT_ESCAPES.values())]),
    "string": row(Text('"'), Repeat(Ref("char")), Text('"')),
    "number": any_number(),
    "member": row(Ref("string"), COLON, Ref("value")),
    "object": row(
        Text("{"),
        Ref("space"),
        maybe(row(Ref("member"), Repeat(row(COMMA, Ref("member"))), Ref("space"))),
        Text("}"),
    ),
    "array": row(
        Text("["),
        Ref("space"),
        maybe(row(Ref("value"), Repeat(row(COMMA, Ref("value"))), Ref("space"))),
        Text("]"),
    ),
    "value": choice(
        [
            *map(Ref, ("object", "array", "string", "number")),
            *map(Text, ("true", "false", "null")),
        ]
    ),
}
"""Rules that others refer to."""


def in_string(allowed: CharSet) -> Expression:
    """Return a character of a set, as it is written within a string."""
    plain = Char(allowed - ~_PLAIN)
    escaped = [Text(written) for char, written in _SHORT_ESCAPES.items() if char in allowed]
    return choice([plain, *escaped] if plain.allowed.ranges else escaped)


def literal(value: object) -> Expression:
    """Return a value as it is written. Rare characters are escaped: of some, vocabularies lack a byte."""
    written = orjson.dumps(value).decode()
    return Text("".join(char if char <= _COMMON else _escaped(char) for char in written))


def _escaped(char: str) -> str:
    pair = char.encode("utf-16-be")
    return "".join(f"\\u{pair[at : at + 2].hex()}" for at in (0, 2))


def other_key(names: Collection[str]) -> Expression:
    """Return a string, its quotes included, that is none of `names`. It has no escapes: they could spell a name."""
    return row(Text('"'), _other_than(frozenset(names)), Text('"'))


def _other_than(names: frozenset[str], depth: int = 0) -> Expression:
    plain = Repeat(Char(_PLAIN))
    if not names:
        return plain
    begins = {name[0] for name in names if name and name[0] in _PLAIN}
    # From a depth on, what begins like a name is left out altogether.
    items: list[Expression] = [
        row(Text(begin), _other_than(_after(names, begin), depth + 1))
        for begin in (sorted(begins) if depth < _MAX_DEPTH else ())
    ]
    items.append(row(Char(_PLAIN - chars("".join(begins))), plain))
    if "" not in names:
        items.append(Text(""))
    return choice(items)


def _after(names: frozenset[str], begin: str) -> frozenset[str]:
    return frozenset(name[1:] for name in names if name[:1] == begin)
