"""Ends an answer at a stop text, wherever tokens cut it, so that no part of it is ever said.

llama.cpp can do it too, but what it holds back it forgets when the answer ends by its length (measured: "This is a" lost
to the stop text " a!"), and the log probabilities of held tokens come without their text.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

Entry = Mapping[str, Any]
"""A token's log probabilities, as OpenAI has them."""


@frozen(kw_only=True)
class Said:
    """What can be said now."""

    text: str = ""
    entries: tuple[Entry, ...] = ()


@define
class _Piece:
    size: int
    entries: tuple[Entry, ...]


@define
class StopFilter:
    """Reads one choice's text. `stopped`: a stop text has come, so what would follow is not wanted."""

    stops: Sequence[str] = ()
    include: bool = False
    """Say the stop text too."""
    stopped: bool = False
    _held: str = ""
    _pieces: deque[_Piece] = field(factory=deque)
    """What is held, as it came; the first may have been said in part."""

    def feed(self, text: str, entries: tuple[Entry, ...] = ()) -> Said:
        """Return what can be said after `text`, whose tokens have `entries`."""
        if self.stopped:
            return Said()
        self._held += text
        self._pieces.append(_Piece(len(text), entries))
        found = [(at, len(stop)) for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if not found:
            return self._say(len(self._held) - self._may_begin())
        self.stopped = True
        at, size = min(found)
        return self._say(at + size if self.include else at)

    def end(self) -> Said:
        """Return what was held, for nothing more will come."""
        return Said() if self.stopped else self._say(len(self._held))

    def _may_begin(self) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0

    def _say(self, size: int) -> Said:
        text, self._held = self._held[:size], self._held[size:]
        entries: list[Entry] = []
        while self._pieces and (size > 0 or not self._pieces[0].size):
            piece = self._pieces[0]
            # A token that is said in part has its entry with the first part.
            entries += piece.entries
            piece.entries = ()
            if piece.size > size:
                piece.size -= size
                break
            size -= piece.size
            self._pieces.popleft()
        return Said(text=text, entries=tuple(entries))
