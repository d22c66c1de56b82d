"""Numbers between bounds, as grammar expressions over decimal digits."""

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from ark_trio.engine.llama.grammar.chars import DIGIT, CharSet
from ark_trio.engine.llama.grammar.expression import (
    Char,
    Expression,
    Repeat,
    Row,
    Text,
    choice,
    maybe,
    row,
)

_WIDEST = 15
"""Digits of a number without bounds: doubles hold that many exactly."""
MAX_DECIMALS = 9
_MAX_EXPONENT_DIGITS = 2

LIMIT = Decimal(10) ** _WIDEST
"""Bounds beyond it are as good as none."""

_Digits = tuple[tuple[int, int], ...]
"""A range of digits for each place."""


class TooPrecise(Exception):
    """Bounds with more digits than are held to here."""


def any_integer() -> Expression:
    """Return any integer."""
    return row(maybe(Text("-")), _integral())


def any_number() -> Expression:
    """Return any number as JSON writes it, not beyond what a double holds."""
    fraction = Row((Text("."), Repeat(Char(DIGIT), 1, _WIDEST)))
    sign = Repeat(Char(CharSet([(43, 43), (45, 45)])), 0, 1)
    exponent = Row(
        (Char(CharSet([(69, 69), (101, 101)])), sign, Repeat(Char(DIGIT), 1, _MAX_EXPONENT_DIGITS))
    )
    return row(any_integer(), maybe(fraction), maybe(exponent))


def integer_between(low: Decimal | None, high: Decimal | None) -> Expression:
    """Return the integers from `low` to `high`, both included."""
    return choice(_signed(low, high, decimals=0, fraction=False))


def number_between(low: Decimal | None, high: Decimal | None) -> Expression:
    """Return numbers from `low` to `high`, both included.

    Raises:
        TooPrecise: the bounds have too many decimals.
    """
    decimals = max(_decimals(low), _decimals(high))
    if decimals > MAX_DECIMALS:
        raise TooPrecise
    return choice(_signed(low, high, decimals=decimals, fraction=True))


def _integral() -> Expression:
    return choice([Text("0"), row(Char(CharSet([(49, 57)])), Repeat(Char(DIGIT), 0, _WIDEST - 1))])


def _decimals(bound: Decimal | None) -> int:
    exponent = 0 if bound is None else bound.normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _signed(
    low: Decimal | None, high: Decimal | None, *, decimals: int, fraction: bool
) -> Iterator[Expression]:
    """Yield the numbers between the bounds in units of 10^-decimals, then with more digits where these fit between."""
    unit = Decimal(1).scaleb(-decimals)
    widest = 10 ** (_WIDEST + decimals)
    first = -widest if low is None else int((low / unit).to_integral_value(ROUND_CEILING))
    last = widest if high is None else int((high / unit).to_integral_value(ROUND_FLOOR))
    for sign, begin, end in (
        ("-", max(1, -last), -first),
        ("", max(0, first), last),
    ):
        yield from _unsigned(sign, begin, end, decimals)
    if fraction:
        for sign, begin, end in (
            ("-", max(0, -last), -first - 1),
            ("", max(0, first), last - 1),
        ):
            yield from _unsigned(sign, begin, end, decimals, more=True)


def _unsigned(
    sign: str, begin: int, end: int, decimals: int, *, more: bool = False
) -> Iterator[Expression]:
    narrowest = decimals + 1
    for width in range(narrowest, max(narrowest, len(str(max(0, end)))) + 1):
        lowest = 10 ** (width - 1) if width > narrowest else 0
        begins, ends = max(begin, lowest), min(end, 10**width - 1)
        if begins <= ends:
            for digits in _spans(str(begins).zfill(width), str(ends).zfill(width)):
                yield _written(sign, digits, decimals, more=more)


def _spans(low: str, high: str) -> Iterator[_Digits]:
    """Yield what covers the numbers of equal width from `low` to `high`."""
    if not low:
        yield ()
        return
    first, last = int(low[0]), int(high[0])
    rest = len(low) - 1
    if first == last:
        yield from (((first, first), *tail) for tail in _spans(low[1:], high[1:]))
        return
    if low[1:] != "0" * rest:
        yield from (((first, first), *tail) for tail in _spans(low[1:], "9" * rest))
        first += 1
    ends_full = high[1:] == "9" * rest
    if first <= last - (not ends_full):
        yield ((first, last - (not ends_full)), *((0, 9),) * rest)
    if not ends_full:
        yield from (((last, last), *tail) for tail in _spans("0" * rest, high[1:]))


def _written(sign: str, digits: _Digits, decimals: int, *, more: bool) -> Expression:
    items: list[Expression] = [Text(sign)] if sign else []
    whole = len(digits) - decimals
    for place, (low, high) in enumerate(digits):
        if place == whole:
            items.append(Text("."))
        items.append(
            Text(str(low)) if low == high else Char(CharSet([(ord("0") + low, ord("0") + high)]))
        )
    if more:
        if not decimals:
            items.append(Text("."))
        items.append(Repeat(Char(DIGIT), 1, MAX_DECIMALS))
    return Row(tuple(items))
