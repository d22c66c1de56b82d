"""Ways into another protocol than HTTP/1.1, and other protocols altogether."""

import base64
from random import Random

import hpack

from tests.fuzz.http1 import request, usually
from tests.fuzz.http2 import PREFACE, http2

STRANGERS = (
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\x11" * 200,  # TLS
    b"SSH-2.0-OpenSSH_9.2\r\n", b"EHLO a\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET /livez\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n", b"\r\n\r\n\x00\r\nQUIT\n", b"\x05\x01\0",
    b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", b"\x80\x2e\x01\x03\x01", b"PRI * HTTP/2.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
)  # fmt: skip


def websocket(rng: Random) -> bytes:
    """Return a WebSocket handshake and what looks like its frames."""
    version = usually(rng, (b"13",), (b"12", b"0", b"x", b"13, 8"), 0.2)
    key = usually(rng, (base64.b64encode(rng.randbytes(16)),), (b"", b"short", b"\xff" * 24), 0.2)
    lines = [
        b"GET %s HTTP/1.1" % rng.choice((b"/v1/chat/completions", b"/", b"/livez")),
        b"host: fuzz",
        b"connection: " + rng.choice((b"Upgrade", b"keep-alive, Upgrade", b"upgrade", b"close")),
        b"upgrade: " + rng.choice((b"websocket", b"WebSocket", b"websocket ", b"h2c, websocket")),
        b"sec-websocket-key: " + key,
        b"sec-websocket-version: " + version,
    ]
    if rng.random() < 0.3:
        lines.append(b"sec-websocket-extensions: permessage-deflate; client_max_window_bits=99")
    head = b"\r\n".join([*lines, b"", b""])
    return head + b"".join(
        rng.randbytes(rng.choice((0, 2, 6, 40, 400))) for _ in range(rng.randrange(4))
    )


def h2c(rng: Random) -> bytes:
    """Return an upgrade to HTTP/2 in clear, with what follows it."""
    settings = usually(
        rng, (b"AAMAAABkAAQAAP__",), (b"", b"!!!!", b"A", b"AAMAAABk" * 50, b"AAQAgAAA"), 0.3
    )
    path = rng.choice((b"/livez", b"/v1/models", b"/\xff\xfe", b"/%ff"))
    method = rng.choice((b"GET", b"POST", b"OPTIONS"))
    head = b"%s %s HTTP/1.1\r\nhost: fuzz\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: %s\r\n\r\n"
    return head % (method, path, settings) + rng.choice(
        (b"", PREFACE, http2(rng), rng.randbytes(60))
    )


def switch(rng: Random) -> bytes:
    """Return HTTP/1.1 that goes on as HTTP/2, or the other way round."""
    first, then = (request(rng), http2(rng)) if rng.random() < 0.5 else (http2(rng), request(rng))
    return first + then


def grpc(rng: Random) -> bytes:
    """Return a gRPC call, which belongs to another port."""
    encoder = hpack.Encoder()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.Inference/Call"),
        (":authority", "x"),
    ]
    block = encoder.encode([*fields, ("te", "trailers"), ("content-type", "application/grpc")])
    length = len(block).to_bytes(3, "big")
    return (
        PREFACE
        + b"\0\0\0\x04\0\0\0\0\0"
        + length
        + b"\x01\x04\0\0\0\x01"
        + block
        + b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0"
    )


def upgrade(rng: Random) -> bytes:
    """Return one of them."""
    make = rng.choice((websocket, websocket, h2c, h2c, switch, grpc, None))
    return rng.choice(STRANGERS) if make is None else make(rng)
