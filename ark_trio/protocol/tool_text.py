"""Tool calls that an engine left in the text, told apart however the text is cut.

What begins like a call and turns out to be none is text again. White space between text and a call belongs to neither.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal

from attrs import frozen

from ark_trio.protocol.held import first_of, held_from
from ark_trio.protocol.step import ToolCallDelta
from ark_trio.protocol.tool_cursor import Block, Cursor
from ark_trio.protocol.tool_fenced import CALL_BEGIN, CALLS_BEGIN, FencedCalls
from ark_trio.protocol.tool_json import TAG, JsonCalls

Syntax = Literal["deepseek", "hermes", "mistral", "json"]
"""R1, V3 and V3.1; `<tool_call>` around JSON (Hermes, Qwen); `[TOOL_CALLS]` and a list; the whole answer (Llama 3)."""

MARKED: Final[tuple[Syntax, ...]] = ("deepseek", "hermes", "mistral")
"""Those that announce a call by a mark, so that no other answer looks like one."""

_MISTRAL: Final = "[TOOL_CALLS]"
_PYTHON: Final = "<|python_tag|>"
_MARKS: Final[Mapping[Syntax, tuple[str, ...]]] = {
    "deepseek": (CALLS_BEGIN, CALL_BEGIN),
    "hermes": (TAG,),
    "mistral": (_MISTRAL,),
    "json": (_PYTHON,),
}
_READERS: Final[Mapping[str, Callable[[Cursor], Block]]] = {
    CALLS_BEGIN: lambda cursor: FencedCalls(cursor, in_call=False),
    CALL_BEGIN: lambda cursor: FencedCalls(cursor, in_call=True),
    TAG: lambda cursor: JsonCalls(cursor, tagged=True),
    _MISTRAL: lambda cursor: JsonCalls(cursor, tagged=False),
    _PYTHON: lambda cursor: JsonCalls(cursor, tagged=False),
}


@frozen(kw_only=True)
class Said:
    """What a piece of text turned out to be."""

    content: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class ToolText:
    """Splits one choice's text. `declared`: the names of the request's tools."""

    def __init__(self, syntaxes: Collection[Syntax], declared: Collection[str]) -> None:
        self._marks = tuple(mark for syntax in syntaxes for mark in _MARKS[syntax])
        self._declared = declared
        self._cursor = Cursor()
        self._block: Block | None = None
        self._gap = ""
        """White space before a block, said only if text follows."""
        self._marked = False
        """The block began with a mark."""
        self._bare = "json" in syntaxes
        """Nothing has been said, so the answer itself may be a call."""
        self._content: list[str] = []

    def feed(self, text: str) -> Said:
        """Return what `text` adds."""
        self._cursor.held += text
        while self._step():
            pass
        return self._take()

    def end(self, *, cut: bool = False) -> Said:
        """Return what was held: a call that was cut off goes as far as it came.

        `cut`: by its length. What then has begun like a call would have become one, so it is none of the text.
        """
        if self._block is not None:
            self._block.cut_off()
            if cut and (self._marked or self._cursor.called):
                self._cursor.drop(len(self._cursor.held))
                self._cursor.raw = ""
            self._leave_block()
        elif cut:
            self._cursor.held = self._cursor.held[: held_from(self._cursor.held, self._marks)]
        rest = self._gap + self._cursor.read(len(self._cursor.held))
        if not (self._cursor.called and rest.isspace()):
            self._content.append(rest)
        return self._take()

    def _step(self) -> bool:
        if self._block is None:
            return self._begin_bare() if self._bare else self._find_mark()
        if self._block.step():
            return True
        if not self._block.over:
            return False
        self._leave_block()
        return True

    def _begin_bare(self) -> bool:
        text = self._cursor.held.lstrip()
        if not text:
            return False
        self._bare = False
        if text[0] in "{[":
            self._gap = self._cursor.read(len(self._cursor.held) - len(text))
            self._cursor.raw = ""
            self._block = JsonCalls(self._cursor, tagged=False, known=self._declared)
        return True

    def _find_mark(self) -> bool:
        held = self._cursor.held
        found = first_of(held, self._marks)
        if found is None:
            self._say(held[: held_from(held, self._marks)])
            return False
        at, mark = found
        self._say(held[:at])
        self._gap += self._cursor.read(at - len(held[:at].rstrip()))
        self._cursor.raw = ""
        self._cursor.read(len(mark))
        self._marked = True
        self._block = _READERS[mark](self._cursor)
        return True

    def _leave_block(self) -> None:
        self._block = None
        raw, self._cursor.raw = self._cursor.raw, ""
        self._gap += raw
        if raw.strip():
            self._content.append(self._gap)
            self._gap = ""

    def _say(self, text: str) -> None:
        """Say what is held up to the end of `text`, but for the white space that ends it."""
        said = text.rstrip()
        if said:
            self._content.append(self._gap + self._cursor.read(len(said)))
            self._gap = ""

    def _take(self) -> Said:
        said = Said(content="".join(self._content), calls=tuple(self._cursor.calls))
        self._content.clear()
        self._cursor.calls.clear()
        return said
