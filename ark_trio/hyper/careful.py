"""h11's reading of heads, chunks and trailers, as strict as the strictest proxy that may stand in front of us.

h11 takes lines that end in a bare LF, folded headers, chunk extensions, lengths given twice, and a length beside a chunked
coding. Each is a way to have a proxy and us disagree on where a request ends, and so to smuggle one past the proxy (RFC 9112,
11.2). Nobody's client needs them; they are refused. So is a head over its limits: h11 counts only what it can't parse yet.
"""

from collections.abc import Sequence

import h11
from h11._receivebuffer import ReceiveBuffer

from ark_trio.config import Limits
from ark_trio.errors import ArkError, HeadersTooLarge, InvalidRequest, UnknownCoding, UriTooLong

_MAX_CHUNK_LINE = 32
"""Bytes of the line that says a chunk's size."""


class Refused(h11.RemoteProtocolError):
    """What was sent is refused; `error` is what the client is told."""

    def __init__(self, error: ArkError) -> None:
        super().__init__(error.message, error_status_hint=error.status)
        self.error = error


def careful_connection(limits: Limits) -> h11.Connection:
    """Return h11's connection of a server, reading through our buffer."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_header_bytes + 4)
    connection._receive_buffer = CarefulBuffer(limits)
    return connection


def error_of(fault: h11.RemoteProtocolError) -> ArkError:
    """Return what the client is told of a fault that h11 has found, or we."""
    if isinstance(fault, Refused):
        return fault.error
    if fault.error_status_hint == UnknownCoding.status:
        return UnknownCoding("Transfer-Encoding must be chunked.")
    return InvalidRequest("The request is not valid HTTP/1.1.")


class CarefulBuffer(ReceiveBuffer):
    """See the module's docstring."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines of a head, or of trailers, once they are there in full."""
        if self._data[:2] == b"\r\n":
            self._extract(2)
            return []
        end = self._data.find(b"\r\n\r\n", max(0, self._multiple_lines_search - 3))
        self._multiple_lines_search = len(self._data)
        if end < 0:
            self._check(self._data.split(b"\r\n"))
            return None
        lines = self._extract(end + 4)[:-4].split(b"\r\n")
        self._check(lines)
        _check_framing(lines)
        return lines

    def maybe_extract_next_line(self) -> bytearray | None:
        """Return the line before a chunk: its size and nothing else."""
        line = super().maybe_extract_next_line()
        seen = self._data if line is None else line
        if len(seen) > _MAX_CHUNK_LINE or b";" in seen:
            raise Refused(InvalidRequest("The body's chunks must have a size and nothing else."))
        return line

    def _check(self, lines: Sequence[bytearray]) -> None:
        """Refuse a head over its limits, as much of it as there is."""
        limits = self._limits
        if len(lines[0]) > limits.max_request_line_bytes:
            raise Refused(UriTooLong("The request line is too long."))
        if len(lines) - 1 > limits.max_headers + 1:  # one may be no more than a line's beginning
            raise Refused(HeadersTooLarge("The request has too many headers."))
        if sum(map(len, lines)) + 2 * len(lines) > limits.max_header_bytes:
            raise Refused(HeadersTooLarge("The request's head is too large."))
        for line in lines:
            if b"\n" in line:
                raise Refused(InvalidRequest("A line of the head does not end in CR LF."))
            if line.startswith((b" ", b"\t")):
                raise Refused(InvalidRequest("A header goes on over several lines."))


def _check_framing(lines: Sequence[bytearray]) -> None:
    """Refuse a request whose end could be taken to be in two places."""
    framing = [line for line in lines[1:] if _name(line) in _FRAMING]
    if len(framing) > 1 or (framing and b"," in framing[0]):
        raise Refused(
            InvalidRequest("Content-Length or Transfer-Encoding must be given, and only once.")
        )
    if framing and _name(framing[0]) == _CODING and not lines[0].endswith(b"1.1"):
        raise Refused(InvalidRequest("Transfer-Encoding needs HTTP/1.1."))


_CODING = b"transfer-encoding"
_FRAMING = (b"content-length", _CODING)


def _name(line: bytearray) -> bytes:
    return bytes(line.partition(b":")[0].strip().lower())
