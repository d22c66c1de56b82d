"""HTTP/1.1 as clients and attackers write it: requests by a grammar whose every part has bad forms too."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import orjson

T = TypeVar("T")

PATHS = (
    b"/v1/chat/completions", b"/v1/chat/completions", b"/v1/chat/completions", b"/v1/completions", b"/tokenize", b"/detokenize",
    b"/v1/models", b"/v1/models/echo", b"/livez", b"/readyz", b"/health", b"/version", b"/openapi.json", b"/docs", b"/metrics",
)  # fmt: skip
BAD_PATHS = (
    b"", b"*", b"//", b"/../../etc/passwd", b"/%00", b"/%", b"/%zz", b"/\xff", b"/v1/models/%2e%2e/x", b"/v1/models/" + b"a" * 3000,
    b"http://other/v1/models", b"example.com:443", b"/livez?" + b"a=b&" * 200, b"/livez#x", b"/v1/models/\xe2\x80\xae", b"/a b",
)  # fmt: skip
METHODS = (b"POST", b"GET", b"HEAD", b"OPTIONS")
BAD_METHODS = (
    b"PUT",
    b"DELETE",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"post",
    b"G\0T",
    b"",
    b"A" * 300,
    b"GET\t",
    b"\xc7ET",
)
VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0",)
BAD_VERSIONS = (
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"http/1.1",
    b"HTTP/1.1 ",
    b"HTTP/1.",
    b"",
    b"HTTP/9999999999.1",
)
SCRIPTS = (
    "count=3", "count=3", "hi there", "count=0", "count=2 n=3", "count=200 size=500", "count=100000 gap_s=0.01",
    "count=5 hang_at=2", "count=5 fail_at=0", "count=5 fail_at=3", "count=5 garbage_at=2", "tool=f", "reasoning=5 count=3",
    "count=2 first_delay_s=0.2", "count=1000000", "stray_choice=7 count=2", "count=3 finish=none", "bogus=1 count=x",
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1.5, 1e308, 2**63, 2**64, 10**30, "", "\0", "a" * 5000, [], [[]], {}, {"": {}}, [None] * 50, "\U0001f600", "\u202e",
)  # fmt: skip
FIELDS = (
    "model", "messages", "stream", "n", "max_tokens", "temperature", "stop", "tools", "tool_choice", "response_format", "logprobs",
    "stream_options", "seed", "logit_bias", "prompt", "user", "metadata", "prediction", "modalities", "reasoning_effort",
)  # fmt: skip
HEADERS = (
    b"user-agent: fuzz", b"accept: */*", b"accept-encoding: gzip, br, zstd", b"authorization: Bearer x", b"cookie: a=b; c=d",
    b"x-request-id: abc", b"x-request-id: \x80\xff", b"x-request-id: " + b"a" * 500, b"traceparent: 00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01",
    b"traceparent: x\ty", b"tracestate: a=b", b"origin: https://a.example", b"expect: 100-continue", b"expect: nonsense",
    b"connection: close", b"connection: keep-alive", b"connection: upgrade", b"connection: close, te, x", b"te: trailers",
    b"x-forwarded-for: 10.0.0.1", b"range: bytes=0-", b"if-none-match: *", b"content-encoding: gzip", b"content-encoding: br",
    b"upgrade: h2c", b"keep-alive: timeout=999999", b"trailer: x", b"via: 1.1 a", b"date: never",
)  # fmt: skip
BAD_HEADERS = (
    b"content-length: 5", b"content-length: -1", b"content-length: +7", b"content-length: 0x10", b"content-length: 5, 5", b"content-length: 5, 6",
    b"content-length:\x0b9", b"content-length: 99999999999999999999", b"content-length : 5", b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked", b"transfer-encoding: identity", b"transfer-encoding: xchunked", b"transfer-encoding : chunked",
    b"transfer-encoding:\x0bchunked", b"transfer-encoding: chunked\r\ntransfer-encoding: chunked", b" folded: yes", b"\tfolded", b"no-colon",
    b": empty", b"a\0b: c", b"x: a\0b", b"x: a\rb", b"x: a\nb: c", b"x\xff: y", b"x: \xff\xfe", b"host: other", b"host:", b"host: a b", b"host: [::",
    b"x: " + b"y" * 70_000, b"grpc-timeout: 1n", b"grpc-status: 0", b":path: /x", b"te: gzip;q=nan", b"content-type: text/html",
    b"content-type: multipart/form-data; boundary=x", b"content-type: application/json; charset=utf-7", b"content-type: " + b"a/" * 500,
)  # fmt: skip


def usually(rng: Random, good: Sequence[T], bad: Sequence[T], chance: float = 0.08) -> T:
    """Choose among the good forms, seldom among the bad ones."""
    return rng.choice(bad if rng.random() < chance else good)


def body(rng: Random) -> bytes:
    """Return a request's body, mostly for the chat endpoint, with some fields of any value."""
    content = rng.choice(SCRIPTS)
    messages = [{"role": rng.choice(("user", "user", "system", "tool", "x")), "content": content}]
    fields: dict[str, object] = {"model": "echo", "messages": messages}
    if rng.random() < 0.7:
        fields["stream"] = rng.random() < 0.7
    if rng.random() < 0.2:
        fields["prompt"] = rng.choice((content, [content, content], [1, 2], [[1], [2]], [[]]))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        value = rng.choice(VALUES)
        fields[rng.choice(FIELDS)] = (
            str(value) if isinstance(value, int) and value >= 2**63 else value
        )
    data = orjson.dumps(fields)
    if rng.random() < 0.04:
        deep = rng.choice((100, 1_000, 60_000))
        data = rng.choice(
            (b"[" * deep, b'{"a":' * deep, b'{"model":"echo","messages":' + b"[" * deep)
        )
    if rng.random() < 0.03:
        data = b'{"model":"echo","seed":' + b"9" * rng.choice((20, 400, 5_000)) + b"}"
    return data


def chunked(data: bytes, rng: Random) -> bytes:
    """Return `data` in chunks, some of a bad form."""
    out = b""
    while data:
        size = rng.randint(1, max(1, len(data)))
        head = usually(
            rng,
            (b"%x" % size, b"%X" % size, b"%x;ext=1" % size, b"000%x" % size),
            (b"-1", b"0x%x" % size, b"%x " % size, b"ffffffffffffffff", b"", b"zz", b"%x\t" % size, b"%x;" % size + b"e" * 9_000),
            0.03,
        )  # fmt: skip
        end = usually(rng, (b"\r\n",), (b"\n", b"\r", b"", b"XX"), 0.03)
        out += head + b"\r\n" + data[:size] + end
        data = data[size:]
    trailer = usually(
        rng,
        (b"",),
        (b"x: y\r\n", b"content-length: 3\r\n", b"bad\r\n", b"x: " + b"z" * 70_000),
        0.05,
    )
    return (
        out
        + usually(rng, (b"0\r\n",), (b"0;x\r\n", b"00000000000\r\n", b"0\n", b""), 0.05)
        + trailer
        + b"\r\n"
    )


def request(rng: Random) -> bytes:
    """Return one request."""
    path = usually(rng, PATHS, BAD_PATHS)
    post = path.endswith((b"completions", b"tokenize"))
    method = usually(rng, (b"POST",) if post else METHODS[1:], BAD_METHODS + METHODS)
    headers = [b"host: fuzz"] if rng.random() < 0.97 else []
    headers += rng.sample(HEADERS, rng.choice((0, 1, 2, 2, 5)))
    if rng.random() < 0.12:
        headers.insert(rng.randrange(len(headers) + 1), rng.choice(BAD_HEADERS))
    if rng.random() < 0.02:
        headers += [b"h%d: v" % number for number in range(rng.choice((90, 300, 3_000)))]
    data = b""
    if method == b"POST" or rng.random() < 0.1:
        data = body(rng)
        headers.append(b"content-type: application/json")
        framing = rng.random()
        if framing < 0.65:
            headers.append(
                b"content-length: %d" % (len(data) + (rng.random() < 0.05) * rng.randint(-9, 9))
            )
        elif framing < 0.95:
            headers.append(b"transfer-encoding: chunked")
            data = chunked(data, rng)
        if framing > 0.9:
            headers.append(b"content-length: %d" % len(data))
    end = usually(rng, (b"\r\n",), (b"\n", b"\r", b"\r\r\n"), 0.03)
    line = b" ".join((method, path, usually(rng, VERSIONS, BAD_VERSIONS, 0.04)))
    return end.join([line, *headers, b"", b""]) + data


def http1(rng: Random) -> bytes:
    """Return what one connection sends: a request, sometimes several at once, sometimes empty lines before them."""
    lead = usually(rng, (b"",), (b"\r\n", b"\r\n" * 40, b"\n", b" ", b"\0"), 0.03)
    return lead + b"".join(request(rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 5))))
