"""Regular expressions as grammar expressions: what a whole text must match.

The syntax that Python and ECMAScript have in common, without what no context-free grammar can say: looking around, back
references, word boundaries.
"""

from collections.abc import Callable
from typing import Never

from ark_trio.engine.llama.grammar.chars import ANY, DIGIT, LINE, SPACE, WORD, CharSet, chars
from ark_trio.engine.llama.grammar.expression import (
    EMPTY,
    Char,
    Expression,
    Repeat,
    Row,
    choice,
    row,
)
from ark_trio.engine.llama.grammar.repetition import repeat
from ark_trio.engine.llama.grammar.writer import Unsupported

MAX_TIMES = 2000
"""Of one repetition: llama.cpp takes no more."""
_MAX_DEPTH = 50
_MAX_CHARS = 4096
_CLASSES = {"d": DIGIT, "D": ~DIGIT, "w": WORD, "W": ~WORD, "s": SPACE, "S": ~SPACE}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_HEX = {"x": 2, "u": 4}

OfChars = Callable[[CharSet], Expression]
"""How a character of a set is written in the text that the grammar describes."""


def parse_pattern(pattern: str, of_chars: OfChars = Char, *, whole: bool = True) -> Expression:
    """Return what matches `pattern`; not `whole`: what contains a match, unless the pattern is anchored.

    Raises:
        Unsupported: it is malformed, or says what a grammar can't.
    """
    if len(pattern) > _MAX_CHARS:
        raise Unsupported(f"it is longer than {_MAX_CHARS} characters")
    parser = _Parser(pattern, of_chars, whole=whole)
    parsed = parser.alternatives(depth=0)
    if parser.rest:
        parser.refuse("a parenthesis is closed that was not opened")
    return parsed


class _Parser:
    def __init__(self, pattern: str, of_chars: OfChars, *, whole: bool) -> None:
        self.rest = pattern
        self._size = len(pattern)
        self._of_chars = of_chars
        self._around = EMPTY if whole else Repeat(of_chars(ANY))

    def refuse(self, why: str) -> Never:
        raise Unsupported(f"{why} (at character {self._size - len(self.rest) + 1} of the pattern)")

    def alternatives(self, depth: int) -> Expression:
        if depth > _MAX_DEPTH:
            self.refuse("it is nested too deeply")
        items = [self._branch(depth)]
        while self._take("|"):
            items.append(self._branch(depth))
        return choice(items)

    def _branch(self, depth: int) -> Expression:
        # Anchors are understood where a branch of the outermost level begins or ends; elsewhere they rarely match.
        items: list[Expression] = []
        if not (self._take("^") and self._outermost(depth)) and depth == 0:
            items.append(self._around)
        ended = False
        while self.rest and self.rest[0] not in "|)":
            if ended:
                self.refuse("something follows $")
            if self._take("$"):
                ended = self._outermost(depth)
            else:
                items.append(self._quantified(depth))
        if not ended and depth == 0:
            items.append(self._around)
        kept = [item for item in items if item != EMPTY]
        return row(*kept) if kept else EMPTY

    def _outermost(self, depth: int) -> bool:
        if depth:
            self.refuse("^ and $ are understood outside of groups only")
        return True

    def _quantified(self, depth: int) -> Expression:
        item = self._atom(depth)
        times = self._times()
        if times is None:
            return item
        if self._times() is not None:
            self.refuse("nothing to repeat")
        least, most = times
        if most is not None and least > most:
            self.refuse("a repetition's bounds are reversed")
        if least > MAX_TIMES:
            self.refuse(f"a repetition goes beyond {MAX_TIMES}")
        return repeat(item, least, None if most is None else min(most, MAX_TIMES))

    def _times(self) -> tuple[int, int | None] | None:
        for sign, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                self._take("?")  # laziness changes what is found, not what matches
                return times
        if not self.rest.startswith("{") or "}" not in self.rest:
            return None
        if self.rest.startswith("{,"):
            self.refuse("{, is read in different ways; write {0,")
        inside = self.rest[1 : self.rest.index("}")]
        low, comma, high = inside.partition(",")
        if not all(_is_count(text) for text in ((low, high) if high else (low,))):
            return None
        self.rest = self.rest[len(inside) + 2 :]
        self._take("?")
        return int(low), (int(high) if high else None) if comma else int(low)

    def _atom(self, depth: int) -> Expression:
        char = self._next()
        match char:
            case "(":
                return self._group(depth)
            case "[":
                return self._of_chars(self._class())
            case ".":
                return self._of_chars(LINE)
            case "\\":
                return self._of_chars(self._escape())
            case "*" | "+" | "?" | "^":
                self.refuse(f"{char} stands where it means nothing")
        return self._of_chars(chars(char))

    def _group(self, depth: int) -> Expression:
        if self._take("?"):
            if self._take("P<") or (
                self.rest.startswith("<") and self.rest[1:2] not in ("=", "!", "")
            ):
                _, _, self.rest = self.rest.partition(">")
            elif not self._take(":"):
                self.refuse("only plain, named and (?:…) groups are understood")
        inside = self.alternatives(depth + 1)
        if not self._take(")"):
            self.refuse("a parenthesis is not closed")
        return Row((inside,)) if not isinstance(inside, Row) else inside

    def _class(self) -> CharSet:
        negated = self._take("^")
        members = CharSet([])
        first = True
        while first or not self._take("]"):
            members |= self._member()
            first = False
        found = ~members if negated else members
        if not found.ranges:
            self.refuse("a class of characters is empty")
        return found

    def _member(self) -> CharSet:
        found = self._member_char()
        if not self.rest.startswith("-") or self.rest[1:2] in ("]", ""):
            return found
        self._take("-")
        low, high = _only(found), _only(self._member_char())
        if low is None or high is None or low > high:
            self.refuse("a range of characters is no range")
        return CharSet([(low, high)])

    def _member_char(self) -> CharSet:
        char = self._next()
        return self._escape(in_class=True) if char == "\\" else chars(char)

    def _escape(self, *, in_class: bool = False) -> CharSet:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return chars(_CONTROLS[char])
        if in_class and char == "b":
            return chars("\b")
        if char in _HEX:
            digits, self.rest = self.rest[: _HEX[char]], self.rest[_HEX[char] :]
            try:
                code = int(digits, 16) if len(digits) == _HEX[char] else -1
                return chars(chr(code))
            except ValueError:
                self.refuse(f"\\{char} takes {_HEX[char]} hexadecimal digits")
        if char.isascii() and char.isalnum():
            self.refuse(f"\\{char} is not understood")
        return chars(char)

    def _next(self) -> str:
        if not self.rest:
            self.refuse("it ends too early")
        char, self.rest = self.rest[0], self.rest[1:]
        return char

    def _take(self, text: str) -> bool:
        found = self.rest.startswith(text)
        if found:
            self.rest = self.rest[len(text) :]
        return found


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_TIMES)) + 2


def _only(found: CharSet) -> int | None:
    (low, high), *more = found.ranges
    return None if more or low != high else low
