"""HTTP/2 frames, as far as the scripted decoder and the client that reads a decoder directly need them. Source: RFC 9113."""

from collections.abc import Iterator
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
INITIAL_WINDOW_SIZE: Final = 4
DEFAULT_WINDOW: Final = 65_535

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return head(kind, flags, stream, len(payload)) + payload


def head(kind: int, flags: int, stream: int, size: int) -> bytes:
    """Return the nine bytes in front of a payload of `size`."""
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def cut(buffer: bytearray) -> Iterator[Frame]:
    """Yield the complete frames at the start of `buffer`, and take them off it."""
    start, size = 0, len(buffer)
    while size - start >= 9:
        end = start + 9 + int.from_bytes(buffer[start : start + 3], "big")
        if end > size:
            break
        stream = int.from_bytes(buffer[start + 5 : start + 9], "big") & 0x7FFFFFFF
        yield buffer[start + 3], buffer[start + 4], stream, bytes(buffer[start + 9 : end])
        start = end
    del buffer[:start]


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding and priority."""
    if flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    return payload[5:] if flags & PRIORITY else payload


def settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield the settings of a SETTINGS frame."""
    for at in range(0, len(payload), 6):
        yield (
            int.from_bytes(payload[at : at + 2], "big"),
            int.from_bytes(payload[at + 2 : at + 6], "big"),
        )
