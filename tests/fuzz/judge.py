"""What came back is HTTP: every byte of it, though it may end anywhere when the connection did."""

from typing import Any

import h11
import hpack
import orjson
from attrs import define, field
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.fuzz.http2 import PREFACE

LEAKS = (
    b"Traceback",
    b"site-packages",
    b'File "',
    b"ark_trio",
    b"/usr/",
    b"object at 0x",
    b"127.0.0.1",
)
"""What no client may ever see."""


KEPT = b"<kept open after a half-close>"
"""Added to what came back by who has waited in vain for the end."""
_PROPOSAL = [("host", "x"), ("connection", "upgrade"), ("upgrade", "x")]
"""h11 takes a 101 only where an upgrade was proposed."""


class BadAnswerError(Exception):
    """The server said something that is no HTTP, or that it should keep to itself."""


def judge(sent: bytes, received: bytes) -> list[int]:
    """Return the statuses of what came back.

    Raises:
        BadAnswerError: it is malformed.
    """
    if received.endswith(KEPT):
        raise BadAnswerError(f"kept open: {received[-300:]!r}")
    for leak in LEAKS:
        if leak in received and leak not in sent:
            raise BadAnswerError(f"{leak!r} in {received[-500:]!r}")
    statuses: list[int] = []
    rest = received
    if rest.startswith(b"HTTP/1.1 ") or not _may_be_http2(sent):
        statuses, rest = _judge_http1(rest, heads=b"HEAD" in sent.upper())
    if rest:
        statuses += _judge_http2(rest)
    if 500 in statuses:
        raise BadAnswerError(f"the gateway failed: {received[:800]!r}")
    return statuses


def _may_be_http2(sent: bytes) -> bool:
    return PREFACE[:16] in sent or b"h2c" in sent.lower()


def _judge_http1(received: bytes, *, heads: bool) -> tuple[list[int], bytes]:
    """Return the statuses, and what is left once HTTP/2 begins."""
    statuses: list[int] = []
    while received:
        if not b"HTTP/1.1 ".startswith(received[:9]):
            if received.startswith(b"\0\0") and statuses:
                return statuses, received  # a frame of at most 64 KiB
            raise BadAnswerError(f"after {statuses}: {received[:200]!r}")
        status, received = _take_response(received, heads=heads)
        if status is not None:
            statuses.append(status)
    return statuses, b""


def _take_response(received: bytes, *, heads: bool) -> tuple[int | None, bytes]:
    """Return a response's status, None if it is cut off before that is known, and what follows it."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="HEAD" if heads else "GET", target="/", headers=_PROPOSAL))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    status, body, response = None, b"", None
    try:
        while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response | h11.InformationalResponse):
                status, response = event.status_code, event
                if status == 101:
                    return status, bytes(client.trailing_data[0])
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if not heads:
                    _judge_body(response, body)
                return status, b"" if heads else bytes(client.trailing_data[0])
    except h11.RemoteProtocolError as error:
        raise BadAnswerError(f"{error}: {received[:400]!r}") from error
    return status, b""


def _judge_body(response: Any, body: bytes) -> None:
    fields = dict(response.headers)
    kind = fields.get(b"content-type", b"")
    if kind == b"application/json":
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadAnswerError(f"no JSON: {body[:300]!r}") from error
        if response.status_code >= 400 and b'"status"' not in body:
            _judge_error(value)
    elif kind.startswith(b"text/event-stream") and not body.endswith(b"data: [DONE]\n\n"):
        raise BadAnswerError(f"a stream without its end: {body[-300:]!r}")


def _judge_error(value: Any) -> None:
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or not {"message", "type", "param", "code"} <= set(error):
        raise BadAnswerError(f"no error in OpenAI's shape: {value!r:.300}")


def _judge_http2(received: bytes) -> list[int]:
    connection = _Connection()
    while (frame := _next_frame(received)) is not None:
        received = received[9 + frame.body_len :]
        connection.take(frame)
    return connection.statuses


def _next_frame(received: bytes) -> Frame | None:
    """Return the first frame, None if it is not all there."""
    if len(received) < 9:
        return None
    try:
        frame, length = Frame.parse_frame_header(memoryview(received[:9]), strict=True)
        if len(received) < 9 + length:
            return None
        frame.parse_body(memoryview(received[9 : 9 + length]))
    except HyperframeError as error:
        raise BadAnswerError(f"{error!r} in {received[:80]!r}") from error
    frame.body_len = length
    return frame


@define
class _Connection:
    """What frames may follow, as RFC 9113 has it."""

    statuses: list[int] = field(factory=list)
    _decoder: hpack.Decoder = field(factory=hpack.Decoder)
    _begun: bool = False
    _answered: set[int] = field(factory=set)
    """Streams with headers."""
    _over: set[int] = field(factory=set)

    def take(self, frame: Frame) -> None:
        """Take the next frame."""
        if not self._begun and not isinstance(frame, SettingsFrame | GoAwayFrame):
            raise BadAnswerError(f"begins with {frame!r}")
        self._begun = True
        if isinstance(frame, HeadersFrame | DataFrame) and frame.stream_id in self._over:
            raise BadAnswerError(f"{frame!r} after the stream's end")
        if isinstance(frame, HeadersFrame | ContinuationFrame):
            self._take_headers(frame)
        elif isinstance(frame, DataFrame) and frame.stream_id not in self._answered:
            raise BadAnswerError(f"{frame!r} before its headers")
        if isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags:
            self._over.add(frame.stream_id)

    def _take_headers(self, frame: HeadersFrame | ContinuationFrame) -> None:
        if "END_HEADERS" not in frame.flags or isinstance(frame, ContinuationFrame):
            raise BadAnswerError(f"a header block in pieces: {frame!r}")
        self._decoder.max_allowed_table_size = 1 << 33
        fields = self._decoder.decode(frame.data, raw=True)
        self.statuses += [int(value) for key, value in fields if key == b":status"]
        self._answered.add(frame.stream_id)
