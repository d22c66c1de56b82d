"""What is read and spelled past h11 is read and spelled alike by h11."""

import contextlib

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.config import Limits
from ark_trio.hyper.careful import careful_connection
from ark_trio.hyper.plain import PlainHead, read_head, spell_head, spell_piece
from tests.hyper.test_h1 import REFUSED
from tests.support.wire import chat, post

LIMITS = Limits()
CLIENTS = {
    "curl": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:18080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "httpx": b"POST /v1/chat/completions HTTP/1.1\r\nHost: x:1\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    b"Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.1\r\nX-Stainless-Lang: python\r\n"
    b"Authorization: Bearer none\r\nContent-Length: 2\r\n\r\n{}",
    "undici": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x:1\r\nconnection: keep-alive\r\naccept: */*\r\naccept-language: *\r\n"
    b"sec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\ncontent-length: 2\r\n\r\n{}",
    "probe": b"GET /readyz?verbose=1 HTTP/1.1\r\nHost: 10.0.0.1:18080\r\nUser-Agent: kube-probe/1.31\r\nAccept: */*\r\n\r\n",
}

methods = st.sampled_from((b"GET", b"POST", b"DELETE", b"HEAD", b"PUT", b"get", b"CONNECT"))
targets = st.sampled_from(
    (b"/", b"/v1/models?x=%20", b"/%zz", b"//a", b"*", b"http://x/y", b"/\xc3")
)
versions = st.sampled_from(
    (b"HTTP/1.1",) * 9 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1")
)
names = st.sampled_from(
    (b"Host", b"content-length", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection", b"x", b"a b", b"")
)  # fmt: skip
values = st.sampled_from(
    (b"x", b"2", b"02", b"+2", b"2, 2", b"chunked", b"keep-alive", b"Keep-Alive", b"close", b"keep-alive, close", b"upgrade", b"",
     b"a  b", b" a", b"a ", b"\ta", b"a\tb", b"\xff", b"a\x00b", b"a\rb", b"100-continue", b"h2c", b"9" * 30)
)  # fmt: skip
separators = st.sampled_from((b": ",) * 8 + (b":", b" : ", b":\t", b""))
ends = st.sampled_from((b"\r\n",) * 12 + (b"\n", b"\r", b"\r\n "))
lines = st.builds(lambda *parts: b"".join(parts), names, separators, values, ends)
heads = st.builds(
    lambda method, target, version, end, host, fields: (
        b" ".join((method, target, version)) + end + (b"host: x\r\n" * host) + b"".join(fields)
    ),
    methods, targets, versions, ends, st.sampled_from((1, 1, 1, 0, 2)), st.lists(lines, max_size=4),
)  # fmt: skip
requests = st.builds(
    lambda head, end, body: head + end + body, heads, ends, st.sampled_from((b"", b"{}", b"{}GET"))
)


def by_h11(data: bytes) -> tuple[h11.Request, bytes, h11.Connection]:
    """Return what the other way reads: a request, and its body as far as it is there."""
    connection = careful_connection(LIMITS)
    connection.receive_data(data)
    request, body = connection.next_event(), b""
    assert isinstance(request, h11.Request)
    assert not connection.they_are_waiting_for_100_continue
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    return request, body, connection


def assert_read_alike(head: PlainHead, data: bytes) -> None:
    request, body, connection = by_h11(data)
    assert (head.method.encode(), head.target) == (request.method, request.target)
    assert request.http_version == b"1.1"
    assert head.fields == list(request.headers)
    assert data[: head.size].endswith(b"\r\n\r\n")
    rest = data[head.size :]
    assert body == rest[: head.body_bytes]
    whole = len(rest) >= head.body_bytes
    assert (connection.their_state is h11.DONE) == whole
    if whole:
        assert connection.trailing_data[0] == rest[head.body_bytes :]
    connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
    connection.send(h11.EndOfMessage())
    assert connection.our_state is h11.DONE  # and not about to close


@given(requests)
@example(
    b"POST / HTTP/1.1\r\nhost: x\r\nx: a  b\r\ncontent-length: 2\r\nconnection: Keep-Alive\r\n\r\n{}GET"
)
def test_what_is_read_here_is_read_alike_by_h11(data: bytes):
    head = read_head(data, LIMITS)
    if head is not None:
        assert_read_alike(head, data)


@pytest.mark.parametrize("data", CLIENTS.values(), ids=CLIENTS)
def test_common_clients_are_read_here(data: bytes):
    head = read_head(data, LIMITS)
    assert head is not None
    assert_read_alike(head, data)


@pytest.mark.parametrize("data", [sent for sent, _ in REFUSED.values()], ids=REFUSED)
def test_nothing_that_is_refused_is_read_here(data: bytes):
    assert read_head(data, LIMITS) is None


def test_no_head_that_is_not_there_in_full_is_read_here():
    request = post(chat("hi", model="m"))
    size = request.index(b"\r\n\r\n") + 4
    assert read_head(request[:size], LIMITS) is not None
    assert not [end for end in range(size) if read_head(request[:end], LIMITS) is not None]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_request_line_bytes=22),
        Limits(max_header_bytes=60),
        Limits(max_headers=2),
        Limits(max_body_bytes=1),
    ],
    ids=["line", "head", "headers", "body"],
)
def test_what_is_over_a_limit_is_for_h11_to_judge(limits: Limits):
    data = b"POST /v1/aaaaa HTTP/1.1\r\nhost: x\r\nx: 1\r\ncontent-length: 2\r\n\r\n{}"
    assert read_head(data, LIMITS) is not None
    assert read_head(data, limits) is None


def test_a_long_head_is_judged_in_time_that_grows_with_its_length():
    """No expression may look at the same spaces again and again."""
    for filler in (b" ", b"a", b" a", b":"):
        data = b"GET / HTTP/1.1\r\nhost: x\r\nx:" + filler * 60_000 + b"\x00\r\n\r\n"
        assert read_head(data, LIMITS) is None


answers = st.tuples(
    st.sampled_from((200, 201, 204, 304, 400, 429, 503)),
    st.lists(
        st.sampled_from(
            (
                (b"content-type", b"application/json"), (b"x-request-id", b"a b"), (b" X-A ", b" 1 "), (b"vary", b""),
                (b"x", b"a\r\nb: 1"), (b"x", b"a\nb"), (b"x", b"a\x00"), (b"a b", b"1"), (b"x", b"\xc3\xa9"), (b"connection", b"close"),
            )
        ),
        max_size=3,
        unique_by=lambda field: field[0],
    ),
    st.lists(st.sampled_from((b"", b"a", b"b" * 300)), max_size=3),
    st.booleans(),
)  # fmt: skip


@given(answers)
def test_what_is_spelled_here_is_spelled_alike_by_h11(
    answer: tuple[int, list[tuple[bytes, bytes]], list[bytes], bool],
):
    status, fields, pieces, sized = answer
    pieces = [] if status in (204, 304) else pieces
    if sized:
        fields = [*fields, (b"content-length", b"%d" % sum(map(len, pieces)))]
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    connection.next_event()
    stripped = [(name.strip(), value.strip()) for name, value in fields]
    try:
        head = connection.send(h11.Response(status_code=status, headers=stripped))
    except h11.LocalProtocolError:
        with pytest.raises(h11.LocalProtocolError):
            spell_head(status, fields, ())
        return
    ours, framing = spell_head(status, fields, ())
    assert ours == head
    told = [connection.send(h11.Data(data=piece)) or b"" for piece in pieces]
    assert [spell_piece(framing, piece, last=False) for piece in pieces] == told
    with contextlib.suppress(h11.LocalProtocolError):  # a 204 with a length
        assert spell_piece(framing, b"", last=True) == (connection.send(h11.EndOfMessage()) or b"")
    assert framing.closes == (connection.our_state is h11.MUST_CLOSE)


def test_how_an_answer_is_framed_is_not_its_own_to_say():
    with pytest.raises(h11.LocalProtocolError):
        spell_head(200, [(b"transfer-encoding", b"chunked")], ())
