"""The head of a call in HPACK's bytes, which is the same for all calls to an engine but for two fields.

hpack keeps a table for each connection, and searches it for each field of each head. A field that is never to enter the table is
spelled alike on every connection (RFC 7541, 6.2.3), so what calls share is spelled once.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from grpclib.encoding.base import GRPC_CONTENT_TYPE
from grpclib.metadata import USER_AGENT
from hpack import Encoder, NeverIndexedHeaderTuple
from hpack.hpack import encode_integer

_NO_TABLE: Final = b"\x20"
"""The table has no room. Said before each head, since an engine that takes its table's room away wants to hear it (RFC 7541, 4.2)."""
_NEVER_INDEXED: Final = b"\x10"
"""Begins a field whose name is spelled too."""
_SIZES: Final = tuple(bytes([size]) for size in range(127))
"""Of strings that are short enough for one byte."""
_ENCODER: Final = Encoder()
"""Keeps nothing: no field is for its table."""


def spell_head(
    scheme: str, authority: str, route: str, metadata: Collection[tuple[str, str]]
) -> bytes:
    """Return the header block of a gRPC request."""
    # The encoder would look each name up in the static table for the sake of a few bytes.
    return _shared(scheme, authority, route) + b"".join(
        [_NEVER_INDEXED + _spell_text(name) + _spell_text(value) for name, value in metadata]
    )


@lru_cache(maxsize=1024)
def _shared(scheme: str, authority: str, route: str) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", scheme),
        (":path", route),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", GRPC_CONTENT_TYPE),
        ("user-agent", USER_AGENT),
    )
    # Huffman's code would save a third of 300 bytes, and cost more than all the rest.
    fresh = [NeverIndexedHeaderTuple(*field) for field in fields]
    return _NO_TABLE + _ENCODER.encode(fresh, huffman=False)


def _spell_text(text: str) -> bytes:
    """Return a string literal (RFC 7541, 5.2)."""
    data = text.encode()
    size = len(data)
    return (_SIZES[size] if size < len(_SIZES) else bytes(encode_integer(size, 7))) + data
