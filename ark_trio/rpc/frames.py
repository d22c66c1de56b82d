"""HTTP/2 frames as they lie in what was read, and as what is written must lie. Source: RFC 9113, 4.1, 6.1 and 6.2."""

import struct
from typing import Final

HEAD_BYTES: Final = 9
DATA: Final = 0
"""DATA without flags: neither padded nor a stream's last."""
HEADERS: Final = 1 << 8 | 4
"""HEADERS with all of a header block (END_HEADERS), neither padded nor with a priority."""
LAST_HEADERS: Final = HEADERS | 1
"""The same with END_STREAM."""
OTHER: Final = -1
"""Stands for the kind of all other frames."""

_HEAD: Final = struct.Struct(">BHHI")
"""Length in two parts, type and flags together, stream."""
_LAST_DATA: Final = DATA | 1
_PLAIN: Final = frozenset((DATA, HEADERS, LAST_HEADERS))

_CONTROL: Final = frozenset((2, 4, 6, 7))
"""PRIORITY, SETTINGS, PING, GOAWAY: frames that go with no call's progress."""
_LAST_KNOWN: Final = 9


def spell_head_frame(stream_id: int, block: bytes) -> bytes:
    """Return HEADERS with all of a header block; the stream goes on."""
    return _spell(HEADERS, stream_id, block)


def spell_data(stream_id: int, data: bytes, *, last: bool) -> bytes:
    """Return a plain DATA frame; `last`: the stream ends with it."""
    return _spell(_LAST_DATA if last else DATA, stream_id, data)


def _spell(kind: int, stream_id: int, payload: bytes) -> bytes:
    high, low = divmod(len(payload), 1 << 16)
    return _HEAD.pack(high, low, kind, stream_id) + payload


def count_control(data: bytes) -> int:
    """Return how many of the whole frames in `data` are of the kinds that a peer has little to say by, or of none."""
    count = at = 0
    while at + HEAD_BYTES <= len(data):
        high, low, kind, _ = _HEAD.unpack_from(data, at)
        at += HEAD_BYTES + (high << 16 | low)
        count += kind >> 8 in _CONTROL or kind >> 8 > _LAST_KNOWN
    return count


def find_frames(data: bytes, max_frame_bytes: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """Return where whole frames lie, and where the first that is not whole begins.

    A plain frame is (kind, stream, begin, end) of its payload, whose head is the `HEAD_BYTES` before it. Other frames that follow
    one another are (`OTHER`, 0, begin, end) with their heads. One that is too long counts as whole as far as it goes: it is an
    error.
    """
    found: list[tuple[int, int, int, int]] = []
    at = others = 0
    whole = len(data)
    last = whole - HEAD_BYTES
    head, plain = _HEAD.unpack_from, _PLAIN
    while at <= last:
        high, low, kind, stream_id = head(data, at)
        size = high << 16 | low
        begin = at + HEAD_BYTES
        end = begin + size
        if size <= max_frame_bytes:
            if end > whole:
                break
            if kind in plain and stream_id:
                if others < at:
                    found.append((OTHER, 0, others, at))
                found.append((kind, stream_id, begin, end))
                others = end
        at = end
    at = min(at, whole)
    if others < at:
        found.append((OTHER, 0, others, at))
    return found, at
