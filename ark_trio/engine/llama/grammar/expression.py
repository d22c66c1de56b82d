"""A grammar as values, and as GBNF, which is what llama.cpp reads.

Source: llama.cpp, grammars/README.md. A grammar here is a map of rules by name; the one that the text must match is "root".
"""

from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from attrs import field, frozen

from ark_trio.engine.llama.grammar.chars import CharSet


@frozen
class Text:
    """Exactly this text."""

    text: str


@frozen
class Char:
    """One character of a set."""

    allowed: CharSet


@frozen
class Row:
    """One after the other. An empty one is the empty text."""

    items: tuple["Expression", ...]


@frozen
class Choice:
    """Any one of them. An empty one matches nothing: what it stands for is impossible."""

    items: tuple["Expression", ...]


@frozen
class Repeat:
    """So many times; `most` None: without an upper bound."""

    item: "Expression"
    least: int = 0
    most: int | None = None


@frozen
class Ref:
    """What another rule says."""

    name: str


Expression = Text | Char | Row | Choice | Repeat | Ref
Rules = Mapping[str, Expression]

EMPTY = Row(())
NEVER = Choice(())


def row(*items: Expression) -> Expression:
    """Return `items` in a row."""
    return items[0] if len(items) == 1 else Row(items)


def choice(items: Iterable[Expression]) -> Expression:
    """Return the choice among `items`."""
    kept = tuple(items)
    return kept[0] if len(kept) == 1 else Choice(kept)


def maybe(item: Expression) -> Expression:
    """Return `item` or nothing."""
    return Repeat(item, 0, 1)


def possible(rules: Rules) -> frozenset[str]:
    """Return the rules that some text of finite length matches."""
    return _holding(rules, is_possible)


def is_possible(item: Expression, known: frozenset[str]) -> bool:
    """Whether some text matches, given the rules that some text matches."""
    return _holds(item, known, lambda leaf: isinstance(leaf, Text) or bool(leaf.allowed.ranges))


def maybe_empty(rules: Rules) -> frozenset[str]:
    """Return the rules that the empty text matches."""
    return _holding(rules, is_maybe_empty)


def is_maybe_empty(item: Expression, known: frozenset[str]) -> bool:
    """Whether the empty text matches, given the rules that it matches."""
    return _holds(item, known, lambda leaf: isinstance(leaf, Text) and not leaf.text)


def _holding(rules: Rules, holds: Callable[[Expression, frozenset[str]], bool]) -> frozenset[str]:
    """Return the rules that something holds for, found from those that need no others."""
    found: frozenset[str] = frozenset()
    while True:
        more = frozenset(name for name, rule in rules.items() if holds(rule, found))
        if more == found:
            return found
        found = more


def _holds(item: Expression, known: frozenset[str], leaf: Callable[[Text | Char], bool]) -> bool:
    """Whether it holds for the parts that a match needs: for rules if they are known, for leaves as `leaf` says."""
    match item:
        case Text() | Char():
            return leaf(item)
        case Row(items):
            return all(_holds(each, known, leaf) for each in items)
        case Choice(items):
            return any(_holds(each, known, leaf) for each in items)
        case Repeat(inner, least):
            return least == 0 or _holds(inner, known, leaf)
        case Ref(name):
            return name in known
        case _:
            assert_never(item)


def to_gbnf(rules: Rules) -> str:
    """Return the grammar as llama.cpp reads it, without what can't be matched. `root` must be possible."""
    writer = _Writer(possible(rules))
    names = [name for name in rules if name in writer.known]
    return "".join(f"{name} ::= {writer.write(rules[name])}\n" for name in names)


@frozen
class _Writer:
    known: frozenset[str] = field()

    def write(self, item: Expression) -> str:
        match item:
            case Text(text):
                return '"' + "".join(map(_escaped, text)) + '"'
            case Char(allowed):
                return "[" + "".join(map(_range, allowed.ranges)) + "]"
            case Row(items):
                return " ".join(map(self._grouped, items)) or '""'
            case Choice(items):
                kept = [each for each in items if is_possible(each, self.known)]
                return " | ".join(self._grouped(each) for each in kept)
            case Repeat(inner, least, most):
                return self._repeat(inner, least, most)
            case Ref(name):
                return name
            case _:
                assert_never(item)

    def _grouped(self, item: Expression) -> str:
        text = self.write(item)
        return f"({text})" if isinstance(item, Row | Choice) else text

    def _repeat(self, inner: Expression, least: int, most: int | None) -> str:
        if not is_possible(inner, self.known) or most == 0:
            return '""'
        text = self.write(inner)
        if not isinstance(inner, Text | Char | Ref):
            text = f"({text})"
        return text + _TIMES.get((least, most), f"{{{least},{'' if most is None else most}}}")


_TIMES = {(0, 1): "?", (0, None): "*", (1, None): "+", (1, 1): ""}
_BYTE, _TWO_BYTES = 0x7F, 0xFFFF


def _escaped(char: str) -> str:
    return char if char.isascii() and (char.isalnum() or char in " _") else _code(ord(char))


def _range(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(number: int) -> str:
    if number <= _BYTE:
        return f"\\x{number:02X}"
    return f"\\u{number:04X}" if number <= _TWO_BYTES else f"\\U{number:08X}"
