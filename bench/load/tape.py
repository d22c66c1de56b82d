"""What a client hears: tokens counted and, while it records, when each came and how long it was under way."""

import re
from array import array
from typing import Final

STAMP: Final = re.compile(rb' (\d{10})"')
"""In JSON and, followed by a quote or not, as bytes of a message: see `bench/decoders/messages.py`."""
DONE: Final = b"data: [DONE]"
ENDED: Final = re.compile(rb'"finish_reason": ?"length"')
_TAIL: Final = 64
_STAMPS: Final = 10**10
"""So many there are."""


class Tape:
    """What all calls of a load have in common."""

    def __init__(self) -> None:
        self.recording = False
        self.tokens = 0
        self.recorded = 0
        self.reads = 0
        """Reads that brought tokens, while it records."""
        self.gaps = array("d")
        """Seconds between two tokens of a stream."""
        self.begins = array("d")
        """When each of these began."""
        self.delays = array("d")
        """Seconds from a token's writing to its reading."""


class Call:
    """One request and its answer so far."""

    def __init__(self, tape: Tape, began: float) -> None:
        self._tape = tape
        self.began = began
        self.first: float | None = None
        self.tokens = 0
        self.ended = False
        """The finish reason and the last marker came, in this order."""
        self.failure: str | None = None
        self._last = 0.0
        self._rest = b""
        self._finished = False

    def hear(self, text: bytes, now: float) -> None:
        """Take a piece of a stream's text, cut anywhere."""
        text = self._rest + text
        end = 0
        stamps = []
        for match in STAMP.finditer(text):
            stamps.append(match[1])
            end = match.end()
        self.count(stamps, now)
        if not self._finished and (ended := ENDED.search(text, end)):
            self._finished = True
            end = ended.end()
        if self._finished and DONE in text[end:]:
            self.ended = True
        self._rest = text[max(end, len(text) - _TAIL) :]

    def count(self, stamps: list[bytes], now: float) -> None:
        """Count tokens that came together."""
        if not stamps:
            return
        tape, new = self._tape, len(stamps)
        if self.first is None:
            self.first = self._last = now
        self.tokens += new
        tape.tokens += new
        if tape.recording:
            tape.recorded += new
            tape.reads += 1
            now_us = int(now * 1e6)
            tape.delays.extend(_since(int(stamp), now_us) for stamp in stamps)
            tape.gaps.append(now - self._last)
            tape.gaps.extend([0.0] * (new - 1))
            tape.begins.extend([self._last] + [now] * (new - 1))
        self._last = now


def _since(stamp_us: int, now_us: int) -> float:
    """Return the seconds since a stamp; nothing, where two clocks that are read one after the other disagree by a moment."""
    passed_us = (now_us - stamp_us) % _STAMPS
    return passed_us / 1e6 if passed_us < _STAMPS / 2 else 0.0
