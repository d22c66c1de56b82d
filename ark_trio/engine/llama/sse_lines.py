"""The lines of llama.cpp's server-sent events, from bytes cut anywhere. Pure.

They end with LF and nothing else: within JSON llama.cpp leaves U+0085, U+2028 and U+2029 as they are, which Python, and
so httpx, take for ends of lines.
"""

from collections.abc import Iterator

from attrs import define, field

from ark_trio.errors import InternalError

MAX_LINE_BYTES = 64 << 20
"""The last event repeats prompt and grammar, each of which may be as large as a request."""


@define
class SseLines:
    """Collects bytes up to the end of a line."""

    _held: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes.

        Raises:
            InternalError: a line has no end.
        """
        *ended, rest = data.split(b"\n")
        for line in ended:
            self._held += line
            yield bytes(self._held)
            self._held.clear()
        self._held += rest
        if len(self._held) > MAX_LINE_BYTES:
            raise InternalError("The engine failed.")
