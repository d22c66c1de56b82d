"""Headers are looked up and read as Quart would."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from quart import Request
from quart_trio import QuartTrio

from ark_trio.api.body import _is_json, announced_bytes
from ark_trio.api.headers import RequestHeaders

WEB = QuartTrio("t", static_folder=None)
NAMES = [b"host", b"authorization", b"x-a", b"content-type"]
VALUES = st.binary(max_size=12).filter(lambda value: not set(value) & set(b"\r\n"))
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)


def quarts(headers: list[tuple[bytes, bytes]]) -> Request:
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/",
        "query_string": b"", "root_path": "", "headers": headers,
    }  # fmt: skip
    return WEB.asgi_http_class(WEB, scope)._create_request_from_scope(_drop)  # type: ignore[arg-type]


async def _drop(_message: Any) -> None:
    """Send nothing."""


@given(PAIRS)
def test_values_are_found_as_by_quart(pairs: list[tuple[bytes, bytes]]):
    ours, theirs = RequestHeaders(pairs), quarts(pairs).headers
    for name in NAMES:
        assert ours.get(name) == theirs.get(name.decode())
        assert ours.getlist(name) == theirs.getlist(name.decode())
        assert (name in ours) == (name.decode() in theirs)


LENGTHS = st.sampled_from([b"0", b"17", b"-1", b"+1", b" 5 ", b"1_0", b"x", b"", b"\xb2"]) | VALUES
CODINGS = st.sampled_from([b"chunked", b"gzip, chunked", b"Chunked", b"identity", b""]) | VALUES
SAID = [
    b"application/json",
    b"Application/JSON; charset=utf-8",
    b" application/json ",
    b";",
    b"",
    b"text/plain",
]
KINDS = st.sampled_from([*SAID, b"application/json;", b"application/json,x", b'a;b="']) | VALUES


@given(length=st.none() | LENGTHS, coding=st.none() | CODINGS)
def test_a_body_is_as_long_as_quart_says(length: bytes | None, coding: bytes | None):
    pairs = [(b"content-length", length), (b"transfer-encoding", coding)]
    sent = [(name, value) for name, value in pairs if value is not None]
    assert announced_bytes(RequestHeaders(sent)) == quarts(sent).content_length


@given(st.none() | KINDS)
def test_a_body_is_json_where_quart_says_so(kind: bytes | None):
    sent = [] if kind is None else [(b"content-type", kind)]
    said = quarts(sent).mimetype in ("", "application/json")
    assert _is_json(RequestHeaders(sent)) == said
