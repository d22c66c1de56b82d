"""How much there is in a JSON text, told before it is parsed.

What a text costs goes by its values, not by its bytes: 32 MiB of `[],[],…` keep a core busy for 20 s and fill gigabytes, 32 MiB in
one string take 0.1 s.
"""

from typing import Final

_PIECE_BYTES: Final = 256 << 10
"""Looked at in one go: whoever shares the interpreter with us waits for a few milliseconds."""
_KEPT: Final = b'",[{'
_DELETED: Final = bytes(code for code in range(256) if code not in _KEPT)


def has_more_values(text: bytes, limit: int) -> bool:
    """Whether `text` has more than `limit` values, counted as its commas and opening brackets outside of strings.

    Any bytes will do. Half a second for the worst 32 MiB, nothing for texts of `limit` bytes.
    """
    if len(text) <= limit:
        return False
    found = quotes = 0
    escape = b""
    for at in range(0, len(text), _PIECE_BYTES):
        piece = escape + text[at : at + _PIECE_BYTES]
        escape = b""
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece, escape = piece[:-1], b"\\"  # it escapes what the next piece begins with
            # Pairs of backslashes first: what is left before a quote escapes it.
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        marks = piece.translate(None, delete=_DELETED)
        found += sum(map(len, marks.split(b'"')[quotes % 2 :: 2]))
        quotes += marks.count(b'"')
        if found > limit or quotes > 4 * limit + 4:  # a value is two strings at most, with its key
            return True
    return False
