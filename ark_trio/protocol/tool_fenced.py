"""DeepSeek's tool calls. R1 and V3 fence the arguments (`function<sep>NAME`, a code block), V3.1 does not (`NAME<sep>{…}`).

Source: the chat templates of DeepSeek-R1-0528 and DeepSeek-V3.1.
"""

import re
from collections.abc import Callable
from typing import Final

from ark_trio.protocol.held import held_from
from ark_trio.protocol.tool_cursor import SPACE, Cursor

CALLS_BEGIN: Final = "<｜tool▁calls▁begin｜>"
CALL_BEGIN: Final = "<｜tool▁call▁begin｜>"
_CALLS_END: Final = "<｜tool▁calls▁end｜>"
_CALL_END: Final = "<｜tool▁call▁end｜>"
_SEPARATOR: Final = "<｜tool▁sep｜>"

_MAX_HEAD: Final = 512
"""Characters within which a call must have said its name."""
_FENCED_HEAD: Final = re.compile(r"\s*([^\s`{<]+)\s*(?:```(?:json)?\s*)?(?=\{|<｜)")
_FENCE: Final = "`" + SPACE


class FencedCalls:
    """Reads what follows either beginning."""

    def __init__(self, cursor: Cursor, *, in_call: bool) -> None:
        self._cursor = cursor
        self._state: Callable[[], bool] | None = self._head if in_call else self._between

    @property
    def over(self) -> bool:
        """See `Block`."""
        return self._state is None

    def step(self) -> bool:
        """See `Block`."""
        return self._state is not None and self._state()

    def cut_off(self) -> None:
        """See `Block`. Arguments have been passed on as they came; what is held may be a part of their end."""
        if self._state != self._head:
            self._cursor.drop(len(self._cursor.held))

    def _between(self) -> bool:
        rest = self._cursor.skip(SPACE)
        if rest.startswith(CALL_BEGIN):
            self._cursor.read(len(CALL_BEGIN))
            self._state = self._head
            return True
        if rest.startswith(_CALLS_END):
            self._cursor.read(len(_CALLS_END))
            if self._cursor.called:
                self._cursor.raw = ""
        elif any(mark.startswith(rest) for mark in (CALL_BEGIN, _CALLS_END)):
            return False
        self._state = None
        return True

    def _head(self) -> bool:
        held = self._cursor.held
        at = held.find(_SEPARATOR)
        name, size = (None, 0) if at < 0 else _name(held[:at].strip(), held, at + len(_SEPARATOR))
        if name:
            self._cursor.read(size)
            self._cursor.begin(name)
            self._state = self._arguments
        elif len(held) > _MAX_HEAD:
            self._state = None
        else:
            return False
        return True

    def _arguments(self) -> bool:
        held = self._cursor.held
        at = held.find(_CALL_END)
        if at < 0:
            safe = len(held[: held_from(held, (_CALL_END,))].rstrip(_FENCE))
            self._cursor.add(self._cursor.read(safe))
            return False
        self._cursor.add(held[:at].rstrip(_FENCE))
        self._cursor.read(at + len(_CALL_END))
        self._cursor.end()
        self._state = self._between
        return True


def _name(head: str, text: str, start: int) -> tuple[str | None, int]:
    """Return the call's name and where its arguments begin; no name yet, or none at all: None."""
    if head == "function":
        match = _FENCED_HEAD.match(text, start)
        return (match[1], match.end()) if match else (None, 0)
    arguments = text[start:].lstrip()
    return (head, len(text) - len(arguments)) if arguments else (None, 0)
