"""Bytes made worse, whatever they mean."""

from random import Random

TRAPS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"\x0b", b"\x85", b"\xff", b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"%00", b"../", b"-1", b"0", b"18446744073709551616", b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\xc0\xaf", b"{" * 64, b"[" * 64, b'"', b"\\u0000", b"1e999", b"data: [DONE]\n\n",
)  # fmt: skip
"""Bytes that programs trip over."""


def mutate(data: bytes, rng: Random) -> bytes:
    """Return `data` with one thing changed."""
    if not data:
        return rng.choice(TRAPS)
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.choice((1, 2, 4, 16, 200)))
    before, inside, after = data[:at], data[at:end], data[end:]
    other = rng.randrange(len(data))
    return rng.choice(
        (
            before + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
            before + after,
            before + inside * rng.choice((2, 3, 50)) + after,
            before + rng.choice(TRAPS) + data[at:],
            before + rng.choice(TRAPS) + after,
            before + rng.randbytes(rng.choice((1, 3, 9, 64))) + after,
            before + data[other : other + 64] + data[at:],
            before + inside.swapcase() + after,
        )
    )
