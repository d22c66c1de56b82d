"""HTTP/1.1 that can be read one way only, and the answers to it. Pure.

Nearly all clients write their requests so: a head of printable ASCII that is there in full, a length or no body, nothing that
asks for more than a request and its answer. Such a head is read by one expression, in a twentieth of the time that h11 takes
for it. What is not of this shape is none of ours: h11 reads it, and says what is wrong with it. What is read here is read alike by
h11, and what is spelled here is spelled alike (tests/hyper/test_plain.py).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import h11
from attrs import frozen

from ark_trio.config import Limits

Field = tuple[bytes, bytes]

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]+"
_HEAD: Final = re.compile(
    rb"(GET|POST|DELETE) (/[!-~]*) HTTP/1\.1\r\n((?:%b:[ -~]*\r\n)+)\r\n" % _TOKEN
)
_NAME: Final = re.compile(_TOKEN)
_VALUE: Final = re.compile(rb"(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?")
"""No CR, no LF: what is in a value stays in it (RFC 9110, 5.5)."""
_NOT_OURS: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_TELLING: Final = _NOT_OURS | {b"host", b"content-length", b"connection"}
"""Each at most once."""
_MAX_DIGITS: Final = 15
BODILESS: Final = frozenset((204, 304))
"""Answers that have no body, whatever is said of it."""


@frozen
class PlainHead:
    """A request's head."""

    method: str
    target: bytes
    fields: list[Field]
    """With names in lower case."""
    body_bytes: int
    size: int
    """Bytes up to the body."""


def read_head(data: bytes, limits: Limits) -> PlainHead | None:
    """Return the head at the beginning of `data`; None: it is for h11 to read, or is not there in full."""
    found = _HEAD.match(data)
    if found is None:
        return None
    method, target, lines = found.groups()
    size = found.end()
    line_bytes = size - len(lines) - 2 * len(b"\r\n")
    if size > limits.max_header_bytes or line_bytes > limits.max_request_line_bytes:
        return None
    fields = _read_fields(lines)
    body_bytes = _body_bytes(fields)
    if body_bytes is None or body_bytes > limits.max_body_bytes or len(fields) > limits.max_headers:
        return None
    return PlainHead(method.decode(), target, fields, body_bytes, size)


def _read_fields(lines: bytes) -> list[Field]:
    fields: list[Field] = []
    for line in lines[:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" ")))
    return fields


def _body_bytes(fields: Sequence[Field]) -> int | None:
    """Return the length of the body; None: the fields that say how to go on ask for more than a request and its answer."""
    told = [field for field in fields if field[0] in _TELLING]
    by_name = dict(told)
    if len(by_name) < len(told) or b"host" not in by_name or not _NOT_OURS.isdisjoint(by_name):
        return None
    if by_name.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = by_name.get(b"content-length", b"0")
    return int(length) if length.isdigit() and len(length) <= _MAX_DIGITS else None


@frozen
class Framing:
    """How an answer's body is told from what follows it."""

    chunked: bool
    length: int = 0
    closes: bool = False
    """The connection ends with the answer."""


def spell_head(
    status: int, fields: Iterable[Field], more: Sequence[Field]
) -> tuple[bytes, Framing]:
    """Return the head of an answer, as h11 spells it, and how its body is framed.

    Raises:
        LocalProtocolError: a field can't be spelled.
    """
    length: bytes | None = None
    closes = False
    lines = [b"HTTP/1.1 %d \r\n" % status]
    for name, value in ((name.strip(), value.strip()) for name, value in (*fields, *more)):
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise h11.LocalProtocolError("A field of the answer's head can't be sent.")
        match name.lower():
            case b"content-length":
                length = value
            case b"transfer-encoding":
                raise h11.LocalProtocolError("How an answer is framed is the server's to say.")
            case b"connection":
                closes = value.lower() == b"close"
        lines.append(b"%b: %b\r\n" % (name, value))
    if status in BODILESS:
        framing = Framing(chunked=False, closes=closes)
    elif length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        framing = Framing(chunked=True, closes=closes)
    else:
        framing = Framing(chunked=False, length=int(length), closes=closes)
    lines.append(b"\r\n")
    return b"".join(lines), framing


def spell_piece(framing: Framing, data: bytes, *, last: bool) -> bytes:
    """Return a piece of the body, and its end where it is the `last`."""
    if not framing.chunked:
        return data
    piece = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return piece + b"0\r\n\r\n" if last else piece
