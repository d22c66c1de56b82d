"""A request body, from bytes to a checked class of its endpoint."""

import json
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import orjson

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.fault import invalid_request
from ark_trio.protocol.structure import structure

T = TypeVar("T")

MAX_DEPTH: Final = 64
"""Levels of arrays and objects, where the caller sets no other."""
_AS_ZEROS: Final = bytes(ord("0") if chr(code).isdigit() else code for code in range(128)) + bytes(
    128
)
_LONG_NUMBER: Final = b"0" * len(str(2**63))
"""Only a number of so many digits can be beyond 64 bits."""
_CONTAINERS: Final = frozenset((dict, list))
_MAX_UNKNOWN: Final = 32
_MAX_UNKNOWN_NAME: Final = 64


def parse_body(body: bytes, kind: type[T], max_depth: int = MAX_DEPTH) -> tuple[T, dict[str, Any]]:
    """Return the checked body, and the JSON object that it was.

    Raises:
        InvalidRequest: and nothing else, whatever the bytes are.
    """
    raw = _load_object(body)
    if _is_deeper(raw, max_depth):
        raise InvalidRequest(f"The body is nested more than {max_depth} levels deep.")
    raw = _exact(body, raw)
    try:
        return structure(raw, kind), raw
    except Exception as error:
        raise invalid_request(error) from error


def unknown_fields(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of fields that nobody here knows, sorted, cut and bounded: for a debug log."""
    return tuple(sorted(name[:_MAX_UNKNOWN_NAME] for name in names)[:_MAX_UNKNOWN])


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether arrays and objects stand inside each other beyond `limit`. No recursion: that is what it protects."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return False
    return True


def _load_object(body: bytes) -> dict[str, Any]:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if _is_binary(body):
            raise InvalidRequest("The body is not valid JSON: it is not UTF-8 text.") from error
        # The parser's own words describe the bytes, not this program.
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return raw


def _exact(body: bytes, raw: dict[str, Any]) -> dict[str, Any]:
    """Return `raw` with integers as the body has them: orjson makes floats of those beyond 64 bits, silently others.

    They are refused where they matter, by name: the contract has no room for them.
    """
    if _LONG_NUMBER not in body.translate(_AS_ZEROS):
        return raw
    exact: dict[str, Any] = json.loads(
        body
    )  # orjson has seen to its depth, and to less than 310 digits
    return exact


def _is_binary(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return True
    return False
