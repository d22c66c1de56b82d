"""Reading one parameter's value: of the type it should be, or a fault of the request that names it."""

import math
from collections.abc import Callable
from typing import Any

from ark_trio.errors import InvalidRequest

Json = dict[str, Any]


def switch(key: str, value: Any) -> Json:
    """Read true or false."""
    if not isinstance(value, bool):
        raise InvalidRequest(f"{key} must be true or false.", param=key)
    return {key: value}


def expect_object(key: str, value: Any) -> Json:
    """Return an object as it stands."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InvalidRequest(f"{key} must be an object.", param=key)
    return value


def number(key: str, value: Any) -> Json:
    """Read a finite number."""
    return number_between(-math.inf, math.inf)(key, value)


def number_between(low: float, high: float) -> Callable[[str, Any], Json]:
    """Return a reader of finite numbers within bounds."""

    def read(key: str, value: Any) -> Json:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InvalidRequest(f"{key} must be a number.", param=key)
        if not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise InvalidRequest(f"{key} must be {bounds}.", param=key)
        return {key: value}

    return read


def whole(key: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """Return a whole number."""
    if (
        type(value) is not int
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        bounds = "" if low is None else f" from {low}" if high is None else f" from {low} to {high}"
        raise InvalidRequest(f"{key} must be a whole number{bounds}.", param=key)
    return value


def is_function(function: Any) -> bool:
    """Whether `function` has a name."""
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def in_order(value: Any) -> Any:
    """Return JSON with every object's members in an order that depends on nothing but them.

    On the wire objects are maps, which have none; a prompt that is written from one must not change with every call.
    """
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=_rank)}
    return [in_order(item) for item in value] if isinstance(value, list) else value


_FIRST = ("type", "function", "name", "description", "parameters", "properties", "required")
"""What people write first, and models are trained on, in that order."""


def _rank(key: str) -> tuple[int, str]:
    return (_FIRST.index(key) if key in _FIRST else len(_FIRST), str(key))
