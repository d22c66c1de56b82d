"""A tool call that a model writes as JSON, `{"name": …, "arguments": {…}}`, read while it is being written.

The arguments are passed on as they stand, as soon as the name is known: they need not be valid JSON, and in OpenAI's API
they are text. Only as much JSON is understood as it takes to find the name, the arguments and the end.
"""

from typing import Any, Final

import orjson

_ARGUMENTS: Final = frozenset({"arguments", "parameters"})


class CallJson:
    """Reads one object. After each `feed`, the attributes and `take_arguments` tell how far it is."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.complete = False
        self.broken = False
        """It is no tool call."""
        self._depth = 0
        self._in_text = False
        self._escaped = False
        self._key: Any = None
        """The member at hand; None: its key is still to come."""
        self._member: list[str] = []
        """The key or value at hand, unless it is streamed."""
        self._arguments: list[str] = []
        self._has_arguments = False
        self._streaming = False
        """Within the arguments, an object: passed on as it comes."""

    def feed(self, text: str) -> int:
        """Read on, and return how many characters were read: up to the name's end, then up to the object's.

        The character that breaks it is not read.
        """
        named = self.name is not None
        for position, char in enumerate(text):
            self._read(char)
            if self.broken:
                return position
            if self.complete or (self.name is not None and not named):
                return position + 1
        return len(text)

    def take_arguments(self) -> str:
        """Return the arguments that have come since the last time."""
        taken = "".join(self._arguments)
        self._arguments.clear()
        return taken

    def _read(self, char: str) -> None:
        if self._in_text:
            self._read_text(char)
        elif char in "{[":
            self._open(char)
        elif char in "}]":
            self._close(char)
        elif self._depth == 0:
            self.broken = True
        elif self._depth == 1 and char in ":,":
            self._mark(char)
        else:
            self._in_text = char == '"'
            self._put(char)

    def _read_text(self, char: str) -> None:
        self._put(char)
        if self._escaped:
            self._escaped = False
        else:
            self._escaped = char == "\\"
            self._in_text = char != '"'

    def _open(self, char: str) -> None:
        self._depth += 1
        if self._depth == 1:
            self.broken = char != "{"
            return
        if self._depth == 2 and char == "{" and self._at_arguments:  # noqa: PLR2004 - the call's members
            self._streaming = self._has_arguments = True
        self._put(char)

    def _close(self, char: str) -> None:
        self._depth -= 1
        if self._depth > 0:
            self._put(char)
            self._streaming = self._streaming and self._depth > 1
        elif self._depth == 0 and char == "}":
            self._end_member()
            self.complete = not self.broken
            if not self._has_arguments:
                self._arguments.append("{}")
        else:
            self.broken = True

    def _mark(self, char: str) -> None:
        """Read what ends a key, or a member of the call itself."""
        if char == ",":
            self._end_member()
        elif self._key is None:
            self._key = _json("".join(self._member))
            self._member.clear()
            self.broken = not isinstance(self._key, str)
        else:
            self.broken = True

    def _end_member(self) -> None:
        raw = "".join(self._member).strip()
        self._member.clear()
        if self._key == "name":
            name = _json(raw)
            self.name = name if isinstance(name, str) and name else None
            self.broken = self.name is None
        elif self._at_arguments and raw:
            self._has_arguments = True
            self._arguments.append(_spelled(raw))
        self._key = None

    @property
    def _at_arguments(self) -> bool:
        return self._key in _ARGUMENTS and not self._has_arguments

    def _put(self, char: str) -> None:
        (self._arguments if self._streaming else self._member).append(char)


def _spelled(raw: str) -> str:
    """Return arguments that are no object as text: some models quote them, and write null for none."""
    value = _json(raw)
    if isinstance(value, str):
        return value
    return "{}" if raw == "null" else raw


def _json(raw: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
