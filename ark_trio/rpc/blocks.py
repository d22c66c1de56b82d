"""Header blocks that h2 has found good, by their bytes.

An engine's answers begin alike and end alike. A block that leaves HPACK's table as it is means the same until another one changes
the table, so it is decoded and checked once.
"""

from typing import Any, Final

from hpack import Decoder
from hpack.table import HeaderTable

MAX_BLOCKS: Final = 32
"""So many are remembered of a connection; as `MAX_BLOCK_BYTES` and h2's limit of 64 KiB decoded, a bound on what an engine can hold here."""
MAX_BLOCK_BYTES: Final = 512

Headers = list[Any]


class KnownBlocks:
    """What one connection's decoder has made of blocks, each for its role: an answer's head or its trailers."""

    def __init__(self, decoder: Decoder) -> None:
        self._table = decoder.header_table = _WatchedTable()
        self._changes = 0
        """Of the table, up to which what is known holds."""
        self._known: dict[tuple[bool, bytes], Headers] = {}

    def find(self, block: bytes, *, trailers: bool) -> Headers | None:
        """Return what `block` says, if that is known. The list is shared: nobody changes it."""
        if self._changes != self._table.changes:
            self.forget()
        return self._known.get((trailers, block))

    def learn(self, block: bytes, headers: Headers, *, trailers: bool) -> None:
        """Remember a block that was asked for, and has been found good; not if it has changed the table."""
        if self._changes != self._table.changes or len(block) > MAX_BLOCK_BYTES:
            return
        if len(self._known) >= MAX_BLOCKS:
            self.forget()
        self._known[trailers, block] = headers

    def forget(self) -> None:
        """Know no block any more: the table is another, or other limits hold."""
        self._known.clear()
        self._changes = self._table.changes


class _WatchedTable(HeaderTable):
    """HPACK's table, which counts its changes. An entry leaves it only for a new one, or for a new size."""

    def __init__(self) -> None:
        self.changes = 0
        super().__init__()

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += newmax != self._maxsize
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]  # mypy sees no property's parts
