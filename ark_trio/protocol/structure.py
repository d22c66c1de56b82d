"""JSON into attrs classes, strictly: nothing is coerced, every misfit is a `Fault` at its place.

An attribute can bring, in its metadata, `STRUCTURE` (a function from the JSON value to the attribute's), `BOUNDS`, and for
documentation `SHAPE` (the type, or the schema, of the JSON value, where it is not the attribute's).
Unknown keys pass: clients send fields of other vendors.
"""

import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import attrs
from attrs import frozen
from cattrs import Converter
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from ark_trio.protocol.fault import MAX_ECHO, MAX_FAULTS, Fault, unexpected
from ark_trio.protocol.float32 import FLOAT32_LIMIT

T = TypeVar("T")
K = TypeVar("K")

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
    return _CONVERTER.structure(value, kind)


def each(value: Any, item: Callable[[Any], T]) -> tuple[T, ...]:
    """Structure a list, item by item. Gives up after MAX_FAULTS faults: the list may have millions of items."""
    if not isinstance(value, list):
        raise unexpected("a list", value)
    items: list[T] = []
    faults: list[Exception] = []
    for position, raw in enumerate(value):
        try:
            items.append(item(raw))
        except Exception as error:  # noqa: BLE001 - collected, and raised below
            error.add_note(IterableValidationNote("", position, None))
            faults.append(error)
            if len(faults) > MAX_FAULTS:
                break
    if faults:
        raise IterableValidationError("", faults, tuple)
    return tuple(items)


def each_entry(value: Any, entry: Callable[[str, Any], tuple[K, T]]) -> dict[K, T]:
    """Structure an object, entry by entry. Gives up as `each` does; keys are the caller's, so a place has them cut."""
    entries: list[tuple[K, T]] = []
    faults: list[Exception] = []
    for key, raw in expect_object(value).items():
        try:
            entries.append(entry(key, raw))
        except Exception as error:  # noqa: BLE001 - collected, and raised below
            error.add_note(AttributeValidationNote("", key[:MAX_ECHO], None))
            faults.append(error)
            if len(faults) > MAX_FAULTS:
                break
    if faults:
        raise ClassValidationError("", faults, dict)
    return dict(entries)


def expect_object(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else raise a Fault."""
    if not isinstance(value, dict):
        raise unexpected("an object", value)
    return value


def expect_text(value: Any) -> str:
    """Return `value` if it is a string, else raise a Fault."""
    if not isinstance(value, str):
        raise unexpected("text", value)
    return value


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


def _bool(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise unexpected("true or false", value)
    return value


def _int(value: Any, _: Any) -> int:
    if type(value) is float and value.is_integer():
        value = int(value)  # for JSON 1.0 is an integer
    if type(value) is not int:
        raise unexpected("an integer", value)
    if not -(2**63) <= value < 2**63:
        raise unexpected("an integer of 64 bits", value)
    return value


def _float(value: Any, _: Any) -> float:
    if type(value) not in {int, float}:
        raise unexpected("a number", value)
    if abs(value) >= FLOAT32_LIMIT:
        raise unexpected("a number that 32-bit floats reach", value)
    return float(value)


def _literal(value: Any, kind: Any) -> str:
    choices: tuple[str, ...] = get_args(kind)
    if not isinstance(value, str) or value not in choices:
        expected = choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
        raise unexpected(expected, value)
    return value


def _tuple_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    item = get_args(kind)[0]
    hook = converter.get_structure_hook(item)
    return lambda value, _: each(value, lambda raw: hook(raw, item))


def _class_hook(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    overrides: Any = {
        attribute.name: override(struct_hook=hook)
        for attribute in attrs.fields(kind)
        if (hook := _attribute_hook(attribute, converter)) is not None
    }
    fill = make_dict_structure_fn(kind, converter, **overrides)
    return lambda value, cls: fill(expect_object(value), cls)


def _attribute_hook(attribute: Any, converter: Converter) -> Callable[[Any, Any], Any] | None:
    hook = _value_hook(attribute, converter)
    if attribute.default is not attrs.NOTHING:
        return hook
    fill = hook or converter.get_structure_hook(attribute.type)

    def required(value: Any, kind: Any) -> Any:
        if value is None:  # as good as absent
            raise Fault("is required")
        return fill(value, kind)

    return required


def _value_hook(attribute: Any, converter: Converter) -> Callable[[Any, Any], Any] | None:
    own = attribute.metadata.get(STRUCTURE)
    if own is not None:
        return lambda value, _: own(value)
    bounds = attribute.metadata.get(BOUNDS)
    return None if bounds is None else _bounded_hook(bounds, attribute.type, converter)


def _bounded_hook(bounds: Bounds, kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        number = converter.structure(value, kind)
        if number is not None and not bounds.admit(number):
            raise unexpected(str(bounds), value)
        return number

    return hook


def _is(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is origin


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=True)
    converter.register_structure_hook(bool, _bool)
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(str, lambda value, _: expect_text(value))
    converter.register_structure_hook_func(_is(dict), lambda value, _: expect_object(value))
    converter.register_structure_hook_func(_is(Literal), _literal)
    converter.register_structure_hook_factory(_is(tuple))(_tuple_hook)
    converter.register_structure_hook_factory(attrs.has)(_class_hook)
    return converter


_CONVERTER: Final = _make_converter()
