"""Strings and numbers of a JSON schema."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from ark_trio.engine.llama.grammar.expression import Expression, Ref, Repeat, Text, row
from ark_trio.engine.llama.grammar.json_text import in_string
from ark_trio.engine.llama.grammar.number import (
    LIMIT,
    MAX_DECIMALS,
    TooPrecise,
    any_integer,
    integer_between,
    number_between,
)
from ark_trio.engine.llama.grammar.pattern import MAX_TIMES, parse_pattern
from ark_trio.engine.llama.grammar.writer import Unsupported, Writer

Schema = Mapping[str, Any]

_MONTH_DAY: Final = (
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))"
)
"""Without the day that only some years have, so that every date is one."""
_DATE: Final = f"[1-9][0-9]{{3}}-{_MONTH_DAY}"
_TIME: Final = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FORMATS: Final[Mapping[str, str]] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "email": r"[A-Za-z0-9_]+([.+-][A-Za-z0-9_]+)*@[A-Za-z0-9]+([.-][A-Za-z0-9]+)*\.[A-Za-z]{2,8}",
}
"""Any other format is an annotation, as the specification has it."""


def write_string(writer: Writer, schema: Schema, place: str, _depth: int) -> Expression:
    """Return the strings that are valid under `schema`."""
    least, most = count_bounds(writer, schema, place, "minLength", "maxLength")
    form = schema.get("format")
    pattern = schema.get("pattern") or (_FORMATS.get(form) if isinstance(form, str) else None)
    if pattern is None:
        if most is not None and least > most:
            return _never(writer, place, "minLength", "maxLength")
        return row(Text('"'), Repeat(Ref("char"), least, most), Text('"'))
    if least or most is not None:
        writer.refuse(
            place, "has a length beside a pattern or format, which can't be combined here"
        )
    if "pattern" in schema and isinstance(form, str) and form in _FORMATS:
        writer.refuse(place, "has both a pattern and a format, which can't be combined here")
    if not isinstance(pattern, str):
        writer.refuse(f"{place}/pattern", "is no text")
    try:
        inside = parse_pattern(pattern, in_string, whole="pattern" not in schema)
    except Unsupported as error:
        raise Unsupported(f"the pattern at {place[:120] or '/'}: {error}") from error
    return row(Text('"'), inside, Text('"'))


def write_integer(writer: Writer, schema: Schema, place: str, _depth: int) -> Expression:
    """Return the integers that are valid under `schema`."""
    low, high = _bounds(writer, schema, place, step=lambda _bounds: Decimal(1))
    if low is None and high is None:
        return any_integer()
    if low is not None and high is not None and _whole_above(low) > high:
        return _never(writer, place, "minimum", "maximum")
    return integer_between(low, high)


def write_number(writer: Writer, schema: Schema, place: str, _depth: int) -> Expression:
    """Return the numbers that are valid under `schema`."""
    low, high = _bounds(writer, schema, place, step=_fine_step)
    if low is None and high is None:
        return Ref("number")
    if low is not None and high is not None and low > high:
        return _never(writer, place, "minimum", "maximum")
    try:
        return number_between(low, high)
    except TooPrecise:
        writer.refuse(place, "has bounds with too many digits to be held to here")


def count_bounds(
    writer: Writer, schema: Schema, place: str, low: str, high: str
) -> tuple[int, int | None]:
    """Return the bounds of a length, the upper one cut to what llama.cpp can count."""
    least, most = schema.get(low, 0), schema.get(high)
    for value in (least, 0 if most is None else most):
        if type(value) is not int or value < 0:
            writer.refuse(place, f"has a {low} or {high} that is no count")
    if least > MAX_TIMES:
        writer.refuse(place, f"has a {low} over {MAX_TIMES}, which output can't be held to here")
    return least, None if most is None else min(most, MAX_TIMES)


def _bounds(
    writer: Writer,
    schema: Schema,
    place: str,
    step: Callable[[Sequence[Decimal]], Decimal],
) -> tuple[Decimal | None, Decimal | None]:
    """Return the least and the greatest number allowed; `step` from what is excluded to its neighbour."""
    lows = _given(writer, schema, place, "minimum", "exclusiveMinimum")
    highs = _given(writer, schema, place, "maximum", "exclusiveMaximum")
    size = step([bound for bound, _ in (*lows, *highs)])
    return (
        max((_next(bound, size) if excluded else bound for bound, excluded in lows), default=None),
        min(
            (_next(bound, -size) if excluded else bound for bound, excluded in highs), default=None
        ),
    )


def _given(
    writer: Writer, schema: Schema, place: str, name: str, exclusive: str
) -> list[tuple[Decimal, bool]]:
    """Return the bounds of one side, and whether each is excluded itself."""
    bound, excluded = _decimal(writer, place, name, schema.get(name)), schema.get(exclusive)
    if isinstance(excluded, bool):  # until draft 4 the exclusive keyword was a flag
        return [] if bound is None else [(bound, excluded)]
    other = _decimal(writer, place, exclusive, excluded)
    both = ((bound, False), (other, True))
    return [(each, out) for each, out in both if each is not None]


def _next(bound: Decimal, step: Decimal) -> Decimal:
    """Return the next number that is inside."""
    if abs(step) == 1 and bound != bound.to_integral_value():
        return bound
    return bound + step


def _fine_step(bounds: Sequence[Decimal]) -> Decimal:
    """Return a step smaller than what lies between any two of the bounds, as fine as is held to here."""
    finest = min(0, *map(_exponent, bounds)) if bounds else 0
    return Decimal(1).scaleb(max(finest - 2, min(-MAX_DECIMALS, finest - 1)))


def _exponent(bound: Decimal) -> int:
    return int(bound.normalize().as_tuple().exponent)


def _decimal(writer: Writer, place: str, name: str, value: Any) -> Decimal | None:
    if value is None:
        return None
    if type(value) not in (int, float):
        writer.refuse(place, f"has a {name} that is no number")
    number = Decimal(str(value))
    if abs(number) <= LIMIT:
        return number
    if (number > 0) != name.endswith("aximum"):
        writer.refuse(place, f"has a {name} too far out to be held to here")
    return None


def _whole_above(bound: Decimal) -> Decimal:
    whole = bound.to_integral_value()
    return whole if whole >= bound else whole + 1


def _never(writer: Writer, place: str, low: str, high: str) -> Expression:
    return writer.never(place, f"has a {low} above its {high}")
