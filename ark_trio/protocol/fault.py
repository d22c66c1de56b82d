"""What is wrong with a request, in the caller's terms: the place, what was expected, what stood there.

Nothing here names a Python type, and what is echoed is cut: it may be megabytes, or someone's secret.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson
from cattrs.errors import ClassValidationError, IterableValidationError

from ark_trio.errors import InvalidRequest

MAX_FAULTS: Final = 10
"""Faults that one message tells."""
MAX_ECHO: Final = 200
"""Characters of the caller's input that one fault repeats."""


class Fault(ValueError):
    """One fault. `place` is relative to the value at hand: a field below it, or empty for itself."""

    def __init__(self, text: str, *, place: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.place = place


def unexpected(expected: str, got: Any, *, place: str = "") -> Fault:
    """Return the fault of a value that is not `expected`."""
    return Fault(f"expected {expected}, got {echo(got)}", place=place)


def echo(value: Any) -> str:
    """Spell a JSON value for its sender: scalars as they are, cut; lists and objects by kind."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str) and len(value) > MAX_ECHO:
        return orjson.dumps(value[:MAX_ECHO]).decode() + "…"
    if type(value) is int:
        return str(value)[:MAX_ECHO]  # the JSON writer stops at 64 bits
    return orjson.dumps(value).decode()


def invalid_request(error: Exception) -> InvalidRequest:
    """Translate what structuring raised. `param` is the first fault's place."""
    faults = list(_walk(error, ""))
    told = [f"{place}: {text}" for place, text in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        told.append(f"and {len(faults) - MAX_FAULTS} more")
    return InvalidRequest("; ".join(told) + ".", param=faults[0][0])


def _walk(error: BaseException, place: str) -> Iterator[tuple[str, str]]:
    """Yield (place, text) in the order of the fields. The leaves are our faults."""
    if isinstance(error, ClassValidationError):
        noted, bare = error.group_exceptions()
        for inner, note in noted:
            yield from _walk(inner, join(place, note.name))
        for inner in bare:
            yield from _walk(inner, place)
    elif isinstance(error, IterableValidationError):
        for inner, index in error.group_exceptions()[0]:
            yield from _walk(inner, f"{place}[{index.index}]")
    elif isinstance(error, Fault):
        yield join(place, error.place), error.text
    else:
        # A bug in a parser: no caller should be told that it is theirs.
        raise error


def join(place: str, below: str) -> str:
    """Join two places as OpenAI spells them: `messages[0]` and `content` give `messages[0].content`."""
    return f"{place}.{below}" if place and below else place or below
