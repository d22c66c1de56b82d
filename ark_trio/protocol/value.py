"""JSON-like values to and from `Value`, the contract's tagged union.

A Python int among a mapping's keys decides its arm: every key an int gives `int64_dict`, else `struct_`. Both directions
dispatch on the exact type, so True is never taken for the integer 1. Source: proto/ark.proto, docs/engine.md.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ark_trio.protocol.float32 import FLOAT32_LIMIT, shortest_float
from ark_wire import ark_pb2

MAX_LEVELS: Final = 98
"""Nested messages below one top-level Value that protobuf readers accept: 100 (their limit) less the entry around it.

An object costs 3 of them, a list 2: 32 objects, or 49 lists, inside each other.
"""

_OBJECT_LEVELS: Final = 3
_LIST_LEVELS: Final = 2


class NotEncodable(ValueError):
    """A value that the wire can't carry. `place` is where it stands, as in `[0].function.strict`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = ""


def to_value(obj: Any) -> ark_pb2.Value:
    """Encode a JSON-like value.

    Raises:
        NotEncodable: an int outside 64 bits, a finite float outside 32, text that is not Unicode, nesting beyond
            MAX_LEVELS, or a type that is not JSON's.
    """
    value = ark_pb2.Value()
    fill_value(value, obj)
    return value


def fill_value(value: ark_pb2.Value, obj: Any, levels: int = MAX_LEVELS) -> None:
    """Encode `obj` into an empty `value` in place, which spares a copy for map entries. Raises as `to_value`."""
    fill = _FILLERS.get(type(obj))
    if fill is None:
        raise NotEncodable("is of a type that has no JSON form")
    fill(value, obj, levels)


def from_value(value: ark_pb2.Value) -> Any:
    """Decode to plain Python: what `to_value` was given, floats at their shortest, bytes as bytes."""
    kind = value.WhichOneof("kind")
    return None if kind is None else _READERS[kind](value)


def _fill_null(value: ark_pb2.Value, obj: None, levels: int) -> None:  # noqa: ARG001 - null is the empty Value
    return


def _fill_bool(value: ark_pb2.Value, obj: bool, levels: int) -> None:  # noqa: ARG001, FBT001
    value.bool_ = obj


def _fill_int(value: ark_pb2.Value, obj: int, levels: int) -> None:  # noqa: ARG001
    value.int64_ = _int64(obj)


def _fill_float(value: ark_pb2.Value, obj: float, levels: int) -> None:  # noqa: ARG001
    # Infinities and NaN pass: engines send -inf as a log probability.
    if FLOAT32_LIMIT <= abs(obj) < float("inf"):
        raise NotEncodable("is a number larger than 32-bit floats reach")
    value.float_ = obj


def _fill_str(value: ark_pb2.Value, obj: str, levels: int) -> None:  # noqa: ARG001
    try:
        value.string_ = obj
    except UnicodeEncodeError:
        raise NotEncodable("is not valid Unicode text") from None


def _fill_bytes(value: ark_pb2.Value, obj: bytes, levels: int) -> None:  # noqa: ARG001
    value.bytes_ = obj


def _fill_list(value: ark_pb2.Value, obj: list[Any] | tuple[Any, ...], levels: int) -> None:
    kinds = set(map(type, obj))
    extend = _TYPED_LISTS.get(kinds.pop()) if len(kinds) == 1 else None
    if levels < _LIST_LEVELS:
        raise NotEncodable("is nested too deeply")
    if extend is not None:
        extend(value, obj)
        return
    values = value.value_list.values
    value.value_list.SetInParent()
    for position, item in enumerate(obj):
        try:
            fill_value(values.add(), item, levels - _LIST_LEVELS)
        except NotEncodable as error:
            error.place = f"[{position}]{error.place}"
            raise


def _extend_ints(value: ark_pb2.Value, obj: list[int]) -> None:
    value.int64_list.values.extend([_int64(number) for number in obj])


def _extend_floats(value: ark_pb2.Value, obj: list[float]) -> None:
    value.float_list.values.extend(obj)


def _extend_strings(value: ark_pb2.Value, obj: list[str]) -> None:
    try:
        value.string_list.values.extend(obj)
    except UnicodeEncodeError:
        raise NotEncodable("is not valid Unicode text") from None


def _extend_bytes(value: ark_pb2.Value, obj: list[bytes]) -> None:
    value.bytes_list.values.extend(obj)


def _fill_dict(value: ark_pb2.Value, obj: dict[Any, Any], levels: int) -> None:
    if levels < _OBJECT_LEVELS:
        raise NotEncodable("is nested too deeply")
    kinds = set(map(type, obj))
    if kinds == {int}:
        _fill_fields(value.int64_dict.fields, obj, _int64, levels)
    elif kinds <= {str}:
        value.struct_.SetInParent()
        _fill_fields(value.struct_.fields, obj, _key, levels)
    else:
        raise NotEncodable("has keys that are not text")


def _fill_fields(
    fields: Any, obj: Mapping[Any, Any], key: Callable[[Any], Any], levels: int
) -> None:
    for name, item in obj.items():
        try:
            fill_value(fields[key(name)], item, levels - _OBJECT_LEVELS)
        except NotEncodable as error:
            error.place = f".{name}{error.place}"
            raise


def _key(name: str) -> str:
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise NotEncodable("has a key that is not valid Unicode text") from None
    return name


def _int64(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise NotEncodable("is an integer outside 64 bits")
    return number


_FILLERS: Final[Mapping[type, Callable[[ark_pb2.Value, Any, int], None]]] = {
    type(None): _fill_null,
    bool: _fill_bool,
    int: _fill_int,
    float: _fill_float,
    str: _fill_str,
    bytes: _fill_bytes,
    list: _fill_list,
    tuple: _fill_list,
    dict: _fill_dict,
}

_TYPED_LISTS: Final[Mapping[type, Callable[[ark_pb2.Value, Any], None]]] = {
    int: _extend_ints,
    float: _extend_floats,
    str: _extend_strings,
    bytes: _extend_bytes,
}

_READERS: Final[Mapping[str, Callable[[ark_pb2.Value], Any]]] = {
    "float_list": lambda value: list(value.float_list.values),
    "int64_list": lambda value: list(value.int64_list.values),
    "bytes_list": lambda value: list(value.bytes_list.values),
    "float_": lambda value: shortest_float(value.float_),
    "int64_": lambda value: value.int64_,
    "bytes_": lambda value: value.bytes_,
    "string_list": lambda value: list(value.string_list.values),
    "string_": lambda value: value.string_,
    "struct_": lambda value: {k: from_value(v) for k, v in value.struct_.fields.items()},
    "value_list": lambda value: [from_value(v) for v in value.value_list.values],
    "int64_dict": lambda value: {k: from_value(v) for k, v in value.int64_dict.fields.items()},
    "bool_": lambda value: value.bool_,
}
