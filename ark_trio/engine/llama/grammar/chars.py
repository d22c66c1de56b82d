"""Sets of characters, as sorted ranges of code points. Surrogates belong to none: no text contains them."""

from collections.abc import Iterable

from attrs import field, frozen

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)

Range = tuple[int, int]
"""First and last code point; both belong to it."""


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


@frozen
class CharSet:
    """A set of characters."""

    ranges: tuple[Range, ...] = field(converter=_merged)

    def __contains__(self, char: str) -> bool:
        return any(low <= ord(char) <= high for low, high in self.ranges)

    def __or__(self, other: "CharSet") -> "CharSet":
        return CharSet(self.ranges + other.ranges)

    def __sub__(self, other: "CharSet") -> "CharSet":
        return ~(~self | other)

    def __invert__(self) -> "CharSet":
        left: list[Range] = []
        begin = 0
        for low, high in _merged((*self.ranges, _SURROGATES)):
            if begin < low:
                left.append((begin, low - 1))
            begin = high + 1
        if begin <= _LAST:
            left.append((begin, _LAST))
        return CharSet(left)


def chars(text: str) -> CharSet:
    """Return the set of the characters in `text`."""
    return CharSet([(ord(char), ord(char)) for char in text])


def span(first: str, last: str) -> CharSet:
    """Return the set of all characters from `first` to `last`."""
    return CharSet([(ord(first), ord(last))])


DIGIT = span("0", "9")
WORD = DIGIT | span("a", "z") | span("A", "Z") | chars("_")
SPACE = chars(" \t\n\r\f\v")
ANY = ~CharSet([])
LINE = ANY - chars("\n\r\u2028\u2029")
"""What a dot stands for."""
