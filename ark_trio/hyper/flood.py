"""Frames of HTTP/2 that cost more to take than to send, and how many of them are taken.

They are counted as they lie in what was read, before h2 works on them: of some of them it tells nothing (an acknowledgement, a
reset or a header block on a stream that is over), and what ends a connection should not have cost what it would cost otherwise.
A frame that is too large is found by its head: h2 would first gather the 16 MiB that it promises. So is a header block, of which it
would keep a megabyte.
"""

import struct
from collections.abc import Callable

from ark_trio.config import Limits
from ark_trio.hyper.budget import Budget

_HEAD = struct.Struct(">BHBBI")
"""Length in two parts, type, flags, stream. Source: RFC 9113, 4.1."""
_STREAM_BITS = 0x7FFF_FFFF
_PREFACE_BYTES = 24
_DATA, _HEADERS, _RST_STREAM, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 8, 9
_END_STREAM, _PADDED = 0x1, 0x8
MAX_FRAME_BYTES = 16 << 10
"""Of a frame's payload, which is what clients may send unless they are told otherwise (RFC 9113, 6.5.2)."""
OVERSIZED = "oversized frame"
_UPDATES_A_PIECE = 2
"""The windows that a client opens again for a DATA frame: the stream's and the connection's. Some do it for each."""


class Floods:
    """Counts them for one connection."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._resets = Budget(limits.max_http2_resets_per_s, clock)
        self._control = Budget(limits.max_http2_control_per_s, clock)
        self._updates = 0
        """WINDOW_UPDATEs that are due for what was sent."""
        self._max_block = limits.max_header_bytes + MAX_FRAME_BYTES
        self._block = 0
        """Bytes of the header block at hand, compressed."""
        self._highest = 0
        """Of the streams that the client has opened."""
        self._begun = b""
        """A frame's head that has not come in full."""
        self._skip = _PREFACE_BYTES
        """Bytes until the next frame."""

    def sent(self) -> None:
        """Note a DATA frame of ours."""
        self._updates += _UPDATES_A_PIECE

    def seen_in(self, data: bytes) -> str | None:
        """Take what was read into account; the name of the flood that it is part of, if it is of one."""
        data = self._begun + data
        at = self._skip
        while at + _HEAD.size <= len(data):
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 16 | low
            at += _HEAD.size + size
            flood = self._too_large(kind, size) or self._spend(
                kind, flags, size, stream & _STREAM_BITS
            )
            if flood is not None:
                return flood
        self._begun, self._skip = data[at:], max(0, at - len(data))
        return None

    def provoked(self) -> str | None:
        """Take into account that we had to reset a stream: a client may want just that (CVE-2025-8671)."""
        return None if self._resets.spend() else "resets"

    def _too_large(self, kind: int, size: int) -> str | None:
        if size > MAX_FRAME_BYTES:
            return OVERSIZED
        if kind in (_HEADERS, _CONTINUATION):
            self._block = size + self._block * (kind == _CONTINUATION)
        return "headers" if self._block > self._max_block else None

    def _spend(self, kind: int, flags: int, size: int, stream: int) -> str | None:
        if kind == _RST_STREAM:
            # Rapid reset: each opens a request that is given up at once, and so never counts as one at once (CVE-2023-44487).
            return self.provoked()
        if kind == _HEADERS and stream > self._highest:
            self._highest = stream
            return None
        if kind == _DATA and not flags & _PADDED and (size or flags & _END_STREAM):
            return None
        if kind == _WINDOW_UPDATE and self._updates:
            self._updates -= 1
            return None
        return None if self._control.spend() else "control frames"
