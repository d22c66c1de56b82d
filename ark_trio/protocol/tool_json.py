"""Tool calls as JSON objects: one between tags, or one or several in a list.

Source: the chat templates of Hermes, Qwen, Mistral and Llama 3.
"""

from collections.abc import Callable, Collection
from typing import Final

from ark_trio.protocol.call_json import CallJson
from ark_trio.protocol.tool_cursor import SPACE, Cursor

TAG: Final = "<tool_call>"
_TAG_END: Final = "</tool_call>"


class JsonCalls:
    """Reads one call and its end tag, or a list of calls; a list of one needs no brackets."""

    def __init__(
        self, cursor: Cursor, *, tagged: bool, known: Collection[str] | None = None
    ) -> None:
        self._cursor = cursor
        self._tagged = tagged
        self._known = known
        """Names that a call may have; None: any."""
        self._call = CallJson()
        self._called = False
        self._in_list = False
        self._state: Callable[[], bool] | None = self._between

    @property
    def over(self) -> bool:
        """See `Block`."""
        return self._state is None

    def step(self) -> bool:
        """See `Block`."""
        return self._state is not None and self._state()

    def cut_off(self) -> None:
        """See `Block`. Arguments have been passed on as they came; what is held may be a part of the end tag."""
        if self._called:
            self._cursor.drop(len(self._cursor.held))

    def _between(self) -> bool:
        rest = self._cursor.skip(SPACE)
        if not rest:
            return False
        if rest[0] == "[" and not (self._tagged or self._in_list or self._called):
            self._cursor.read(1)
            self._in_list = True
        elif rest[0] in ",;" and self._called:
            self._cursor.drop(1)
        elif rest[0] == "{":
            self._call = CallJson()
            self._state = self._object
        else:
            if rest[0] == "]" and self._called and self._in_list:
                self._cursor.drop(1)
                self._cursor.raw = ""
            self._state = None
        return True

    def _object(self) -> bool:
        call, cursor = self._call, self._cursor
        cursor.read(call.feed(cursor.held))
        if call.name is not None and not cursor.in_call:
            if self._known is not None and call.name not in self._known:
                self._state = None
                return True
            cursor.begin(call.name)
        if cursor.in_call:
            cursor.add(call.take_arguments())
        if call.complete or call.broken:
            self._end_object()
            return True
        return bool(cursor.held)

    def _end_object(self) -> None:
        if self._cursor.in_call:
            self._cursor.end()
            self._called = True
            self._state = self._end_tag if self._tagged else self._between
        else:
            self._state = None

    def _end_tag(self) -> bool:
        rest = self._cursor.skip(SPACE)
        if not rest.startswith(_TAG_END) and _TAG_END.startswith(rest):
            return False
        if rest.startswith(_TAG_END):
            self._cursor.drop(len(_TAG_END))
            self._cursor.raw = ""
        self._state = None
        return True
