"""HTTP/2 with prior knowledge, frame by frame: requests among settings, windows, priorities, pings and resets, all of bad forms too."""

import struct
from random import Random

import hpack

from tests.fuzz.http1 import BAD_METHODS, BAD_PATHS, PATHS, body, usually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20

BAD_FIELDS = (
    (b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"TE", b"gzip"), (b"Upper", b"x"), (b":path", b"/again"),
    (b":nonsense", b"x"), (b"content-length", b"3"), (b"content-length", b"-3"), (b"host", b"other"), (b"", b"x"), (b"x", b"a\r\nb: c"),
    (b"x", b"a\0b"), (b"x\xff", b"y"), (b"cookie", b"a" * 5_000), (b"expect", b"100-continue"), (b"upgrade", b"websocket"),
    (b":protocol", b"websocket"), (b"grpc-timeout", b"1n"), (b"x-request-id", b"\x80"),
)  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame, whatever it says."""
    return (
        struct.pack(">I", len(payload))[1:]
        + struct.pack(">BBI", kind, flags, stream & 0xFFFFFFFF)
        + payload
    )


def block(rng: Random, encoder: hpack.Encoder) -> bytes:
    """Return a request's header block."""
    path = usually(rng, PATHS, BAD_PATHS)
    post = path.endswith((b"completions", b"tokenize"))
    fields = [
        (b":method", usually(rng, (b"POST",) if post else (b"GET", b"HEAD"), BAD_METHODS)),
        (b":scheme", usually(rng, (b"http",), (b"https", b"x", b""))),
        (b":path", path),
        (b":authority", usually(rng, (b"fuzz",), (b"", b"a b", b"\xff"))),
    ]
    if rng.random() < 0.05:
        del fields[rng.randrange(4)]
    fields.append((b"content-type", b"application/json"))
    if rng.random() < 0.12:
        fields.insert(rng.randrange(len(fields) + 1), rng.choice(BAD_FIELDS))
    if rng.random() < 0.02:
        fields += [(b"h%d" % number, b"v" * 20) for number in range(rng.choice((90, 1_000, 4_000)))]
    raw = encoder.encode(fields)
    bad = rng.random()
    if bad < 0.02:
        return b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + raw  # an index beyond everything
    if bad < 0.04:
        return b"\x3f\xff\xff\xff\x7f" + raw  # a table of 256 MiB, please
    return raw


def headers(rng: Random, encoder: hpack.Encoder, stream: int, *, end: bool) -> bytes:
    """Return a header block in a HEADERS frame and its continuations."""
    data = block(rng, encoder)
    flags = END_STREAM if end else 0
    lead = b""
    if rng.random() < 0.1:
        flags |= PRIORITIZED
        lead = struct.pack(
            ">IB", rng.choice((0, 1, stream, 2**31 - 1, 2**31 + 3)), rng.randrange(256)
        )
    if rng.random() < 0.05:
        flags |= PADDED
        pad = rng.choice((0, 1, 200))
        lead = bytes([pad]) + lead
        data += b"\0" * (pad if rng.random() < 0.8 else 0)
    pieces = [data]
    if rng.random() < 0.15 or len(data) > 16_000:
        size = max(1, min(16_000, len(data) // rng.choice((1, 2, 5))))
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if rng.random() < 0.02:
        pieces += [b""] * rng.choice((3, 300))
    last = len(pieces) - 1
    out = frame(HEADERS, flags | (END_HEADERS if last == 0 else 0), stream, lead + pieces[0])
    for number, piece in enumerate(pieces[1:], 1):
        done = END_HEADERS if number == last and rng.random() < 0.95 else 0
        out += frame(CONTINUATION, done, stream if rng.random() < 0.97 else stream + 2, piece)
    return out


def exchange(rng: Random, encoder: hpack.Encoder, stream: int) -> bytes:
    """Return a whole request on a stream."""
    if rng.random() < 0.25:
        return headers(rng, encoder, stream, end=True)
    data = body(rng)[:60_000]
    out = headers(rng, encoder, stream, end=False)
    while data:
        piece, data = data[:16_384], data[16_384:]
        out += frame(DATA, 0 if data or rng.random() < 0.05 else END_STREAM, stream, piece)
    if rng.random() < 0.05:
        out += headers(rng, encoder, stream, end=True)  # trailers
    return out


def game(rng: Random, streams: list[int]) -> bytes:
    """Return frames that are no request."""
    stream = rng.choice([0, *streams, *streams, 2, 2**31 - 1, 99])
    number = rng.choice((0, 1, 100, 65_535, 2**31 - 1, 2**31, 2**32 - 1))
    word = struct.pack(">I", number)
    times = rng.choice((1, 1, 1, 2, 30))
    entry = struct.pack(">HI", rng.choice((1, 2, 3, 4, 5, 6, 8, 77)), number)
    too_long = struct.pack(">I", rng.choice((16_385, 100_000, 2**24 - 1)))[1:]
    odd_kind = rng.choice((PUSH_PROMISE, CONTINUATION, 10, 77, 255))
    data_flags = rng.choice((0, END_STREAM, PADDED))
    return rng.choice(
        (
            frame(WINDOW_UPDATE, 0, stream, word) * times,
            frame(RST_STREAM, 0, stream, word) * times,
            frame(RST_STREAM, 0, stream, b"\0\0\0\x08"),
            frame(
                SETTINGS, rng.choice((0, 0, 0, ACK)), rng.choice((0, 0, 0, stream)), entry * times
            ),
            frame(PING, rng.choice((0, 0, ACK)), 0, rng.randbytes(rng.choice((8, 8, 7)))) * times,
            frame(PRIORITY, 0, stream, word + b"\x10") * times,
            frame(GOAWAY, 0, 0, word + word + b"bye"),
            frame(DATA, data_flags, stream, rng.randbytes(rng.choice((0, 1, 300)))) * times,
            frame(odd_kind, rng.randrange(256), stream, rng.randbytes(9)),
            too_long + bytes([rng.randrange(12), 0]) + word + b"x" * 50,
        )
    )


def http2(rng: Random) -> bytes:
    """Return what one connection sends."""
    encoder = hpack.Encoder()
    out = PREFACE + frame(SETTINGS, 0, 0, b"")
    if rng.random() < 0.2:
        # The server may send little: windows of 0, 1 or 20 bytes, frames of odd sizes.
        out = PREFACE + frame(
            SETTINGS, 0, 0, struct.pack(">HI", 4, rng.choice((0, 1, 20, 2**31 - 1)))
        )
    streams: list[int] = []
    next_stream = 1
    for _ in range(rng.choice((1, 2, 3, 6, 12))):
        if rng.random() < 0.65:
            out += exchange(rng, encoder, next_stream)
            streams.append(next_stream)
            next_stream += 2 if rng.random() < 0.95 else rng.choice((0, 1, 1_000))
        else:
            out += game(rng, streams)
    if rng.random() < 0.04:
        # Rapid reset.
        for _ in range(rng.choice((50, 300))):
            out += exchange(rng, encoder, next_stream) + frame(
                RST_STREAM, 0, next_stream, b"\0\0\0\x08"
            )
            next_stream += 2
    return out
