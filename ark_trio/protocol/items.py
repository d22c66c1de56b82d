"""Lists and objects of a request, item by item: all faults are told at once, each at its place."""

from collections.abc import Callable
from typing import Any, TypeVar

from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    IterableValidationNote,
)

from ark_trio.protocol.fault import MAX_ECHO, MAX_FAULTS, unexpected

T = TypeVar("T")
K = TypeVar("K")


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
