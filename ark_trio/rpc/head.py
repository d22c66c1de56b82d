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

_NO_TABLE: Final = b"\x20"
"""The table has no room. Said before each head, since an engine that takes its table's room away wants to hear it (RFC 7541, 4.2)."""
_ENCODER: Final = Encoder()
"""Keeps nothing: no field is for its table."""


def spell_head(
    scheme: str, authority: str, route: str, metadata: Collection[tuple[str, str]]
) -> bytes:
    """Return the header block of a gRPC request."""
    return _shared(scheme, authority, route) + _spell(metadata)


@lru_cache(maxsize=1024)
def _shared(scheme: str, authority: str, route: str) -> bytes:
    return _NO_TABLE + _spell(
        (
            (":method", "POST"),
            (":scheme", scheme),
            (":path", route),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", GRPC_CONTENT_TYPE),
            ("user-agent", USER_AGENT),
        )
    )


def _spell(fields: Collection[tuple[str, str]]) -> bytes:
    # Huffman's code would save a third of 300 bytes, and cost more than all the rest.
    fresh = [NeverIndexedHeaderTuple(*field) for field in fields]
    return _ENCODER.encode(fresh, huffman=False)
