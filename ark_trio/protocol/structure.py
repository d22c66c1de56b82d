"""JSON into attrs classes, strictly: nothing is coerced, every misfit is a `Fault` at its place.

An attribute can bring, in its metadata, `STRUCTURE` (a function from the JSON value to the attribute's), `BOUNDS`, and for
documentation `SHAPE` (the type, or the schema, of the JSON value, where it is not the attribute's).
Unknown keys pass: clients send fields of other vendors.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

import attrs
from attrs import frozen
from cattrs import Converter
from cattrs.errors import AttributeValidationNote, ClassValidationError

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.float32 import FLOAT32_LIMIT
from ark_trio.protocol.items import each, expect_object, expect_text

T = TypeVar("T")
Hook = Callable[[Any], Any]
"""Structures one JSON value, or raises what is wrong with it."""

STRUCTURE: Final = "structure"
BOUNDS: Final = "bounds"
SHAPE: Final = "shape"
NAME: Final = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
"""Schema of the names of functions and schemas."""
TOKENS: Final = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}}
"""Schema of token ids."""
NOT_EMPTY: Final = "not empty"
"""In `Annotated`: a list with at least one item."""
KIND: Final = "kind"
"""Marks the attribute that tells one of several classes apart: required, though its value is constant."""


@frozen(kw_only=True)
class Bounds:
    """Where a number may lie; both ends belong to it unless said otherwise."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    """A lower end that does not belong to it."""

    def admit(self, number: float) -> bool:
        """Whether `number` lies inside."""
        return not (
            (self.minimum is not None and number < self.minimum)
            or (self.maximum is not None and number > self.maximum)
            or (self.above is not None and number <= self.above)
        )

    def __str__(self) -> str:
        if self.above is not None:
            return f"a number above {self.above:g}"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"a number from {self.minimum:g} to {self.maximum:g}"


def structure(value: Any, kind: type[T]) -> T:
    """Return `value` as a `kind`.

    Raises:
        Exception: what `fault.invalid_request` translates, nothing else.
    """
    structured: T = _hook_of(cast(Any, kind))(value)
    return structured


def parse_name(value: Any) -> str:
    """Return the name of a function or a schema. Source: OpenAI's API description 2.3.0, FunctionObject."""
    if not _NAME.fullmatch(expect_text(value)):
        raise unexpected("1 to 64 letters of A to Z, a to z, digits, _ or -", value)
    return str(value)


def parse_tokens(value: Any) -> tuple[int, ...]:
    """Return token ids."""
    return each(value, _token)


def _token(value: Any) -> int:
    token = structure(value, int)
    if token < 0:
        raise unexpected("a token id, an integer from 0", value)
    return token


_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise unexpected("true or false", value)
    return value


def _int(value: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)  # for JSON 1.0 is an integer
    if type(value) is not int:
        raise unexpected("an integer", value)
    if not -(2**63) <= value < 2**63:
        raise unexpected("an integer of 64 bits", value)
    return value


def _float(value: Any) -> float:
    if type(value) not in {int, float}:
        raise unexpected("a number", value)
    if abs(value) >= FLOAT32_LIMIT:
        raise unexpected("a number that 32-bit floats reach", value)
    return float(value)


def _null(value: Any) -> None:
    if value is not None:
        raise unexpected("null", value)


def _class_hook(kind: Any) -> Hook:
    """Return the hook of a class. It looks at what is there, a few keys of some sixty, each with its hook at hand."""
    hooks = {one.name: _attribute_hook(one) for one in attrs.fields(kind)}
    required = [one.name for one in attrs.fields(kind) if one.default is attrs.NOTHING]

    def fill(value: Any) -> Any:
        given: dict[str, Any] = {}
        faults: dict[str, Exception] = {}
        for name, raw in expect_object(value).items():
            if (hook := hooks.get(name)) is not None:
                try:
                    given[name] = hook(raw)
                except Exception as error:  # noqa: BLE001 - collected, and raised below
                    faults[name] = error
        for name in required:
            if name not in value:
                faults[name] = Fault("is required")
        return _made(kind, given) if not faults else _refuse(kind, hooks, faults)

    return fill


def _made(kind: Any, given: dict[str, Any]) -> Any:
    try:
        return kind(**given)
    except Exception as error:
        raise ClassValidationError("", [error], kind) from error


def _refuse(kind: Any, names: Iterable[str], faults: Mapping[str, Exception]) -> NoReturn:
    """Raise all faults as one, in the order of the class's attributes, not of the caller's keys."""
    told = [name for name in names if name in faults]
    for name in told:
        faults[name].add_note(AttributeValidationNote("", name, None))
    raise ClassValidationError("", [faults[name] for name in told], kind)


def _attribute_hook(attribute: Any) -> Hook:
    own: Hook | None = attribute.metadata.get(STRUCTURE)
    bounds: Bounds | None = attribute.metadata.get(BOUNDS)
    hook = own or _hook_of(attribute.type)
    if own is None and bounds is not None:
        hook = _bounded(hook, bounds)
    return hook if attribute.default is not attrs.NOTHING else _required(hook)


def _bounded(hook: Hook, bounds: Bounds) -> Hook:
    def fill(value: Any) -> Any:
        number = hook(value)
        if number is not None and not bounds.admit(number):
            raise unexpected(str(bounds), value)
        return number

    return fill


def _required(hook: Hook) -> Hook:
    def fill(value: Any) -> Any:
        if value is None:  # as good as absent
            raise Fault("is required")
        return hook(value)

    return fill


@cache
def _hook_of(kind: Any) -> Hook:
    """Return what structures values of a type, found once and not for each value."""
    hook = _CONVERTER.get_structure_hook(kind)
    return lambda value: hook(value, kind)


def _optional_hook(kind: Any) -> Hook:
    (one,) = (argument for argument in get_args(kind) if argument is not NoneType)
    hook = _hook_of(one)
    return lambda value: None if value is None else hook(value)


def _tuple_hook(kind: Any) -> Hook:
    hook = _hook_of(get_args(kind)[0])
    return lambda value: each(value, hook)


def _literal_hook(kind: Any) -> Hook:
    choices: tuple[str, ...] = get_args(kind)
    expected = choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)

    def take(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise unexpected(expected, value)
        return value

    return take


def _has_origin(*origins: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) in origins


def _make_converter() -> Converter:
    converter = Converter()
    hooks: dict[Any, Hook] = {bool: _bool, int: _int, float: _float, str: expect_text}
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, _as_cattrs(hook))
    converter.register_structure_hook_func(lambda kind: kind is None, _as_cattrs(_null))
    converter.register_structure_hook_func(_has_origin(dict), _as_cattrs(expect_object))
    factories: tuple[tuple[Callable[[Any], bool], Callable[[Any], Hook]], ...] = (
        (_has_origin(Literal), _literal_hook),
        (_has_origin(tuple), _tuple_hook),
        (_has_origin(Union, UnionType), _optional_hook),
        (attrs.has, _class_hook),
    )
    for is_one, make in factories:
        converter.register_structure_hook_factory(
            is_one, lambda kind, make=make: _as_cattrs(make(kind))
        )
    return converter


def _as_cattrs(hook: Hook) -> Callable[[Any, Any], Any]:
    return lambda value, _: hook(value)


_CONVERTER: Final = _make_converter()
