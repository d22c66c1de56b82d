"""Reading one field of an engine's message: absent, of the type it should be, or a fault of the engine.

An absent key and a null (an empty Value) are the same. Every function takes the Value or None.

An arm that isn't set reads as empty, and a field that isn't empty proves its arm: so what is there is read first, and
which arm is set is asked only about the rest. That halves the cost of a token.
"""

from collections.abc import Mapping
from typing import Final

from ark_trio.errors import BadBackend
from ark_wire import ark_pb2

Fields = Mapping[str, ark_pb2.Value]

_TEXT_ARMS: Final = ("string_", "bytes_", None)


def read_fields(value: ark_pb2.Value | None, place: str) -> Fields | None:
    """Return the fields of an object. They are a view: reading a key by `[]` would create it, so use `get`."""
    if value is None:
        return None
    fields = value.struct_.fields
    if fields or value.HasField("struct_"):
        return fields
    _expect_null(value, place)
    return None


def read_count(value: ark_pb2.Value | None, place: str) -> int | None:
    """Return an integer that is not negative."""
    if value is None:
        return None
    count = value.int64_
    if count > 0 or (count == 0 and value.HasField("int64_")):
        return count
    _expect_null(value, place)
    return None


def read_text(value: ark_pb2.Value | None, place: str) -> str:
    """Return a text, whether it comes as text or as whole bytes; "" if there is none."""
    if value is None:
        return ""
    text = value.string_ or value.bytes_.decode(errors="replace")
    if not text and value.WhichOneof("kind") not in _TEXT_ARMS:
        raise malformed(place)
    return text


def _expect_null(value: ark_pb2.Value, place: str) -> None:
    if value.WhichOneof("kind") is not None:
        raise malformed(place)


def malformed(place: str) -> BadBackend:
    """Return the error for a known key with a value that it can't have."""
    return BadBackend(f"The engine sent a malformed message ({place}).")
