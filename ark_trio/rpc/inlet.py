"""What one call's HTTP/2 stream brings: bytes in, messages into a sink, without waking a task.

grpclib's own buffer wakes an asyncio task for every frame. Here the task that owns the call sleeps until the sink is full, the
stream has ended, or what came can't be understood; everything else happens where the connection is read.
"""

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from grpclib.exceptions import ProtocolError

from ark_trio.errors import BadBackend
from ark_trio.rpc.mailbox import Sink

log = structlog.get_logger()

M = TypeVar("M")

_PREFIX = struct.Struct(">BI")
_PREFIX_BYTES = _PREFIX.size


class Inlet(Generic[M]):
    """Stands in the place of grpclib's buffer of a stream."""

    __slots__ = (
        "_error",
        "_flowing",
        "_held",
        "_held_bytes",
        "_limit_bytes",
        "_needed_bytes",
        "_parse",
        "_settle",
        "_settle_at_bytes",
        "_sink",
        "_stir",
        "_taken",
        "_uncounted_bytes",
        "_unused_bytes",
        "_used_bytes",
        "due",
        "ended",
    )

    def __init__(
        self,
        sink: Sink[M],
        parse: Callable[[bytes], M],
        settle: Callable[[int, int], None],
        stir: Callable[[], None],
        *,
        limit_bytes: int,
        settle_at_bytes: int,
    ) -> None:
        self._sink = sink
        self._parse = parse
        self._settle = settle
        """Counts bytes that have arrived against the stream's window, and gives bytes back to it."""
        self._stir = stir
        """Wakes the owner."""
        self._limit_bytes = limit_bytes
        """Largest message."""
        self._taken: list[bytes] = []
        """Not yet among those held."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = _PREFIX_BYTES
        """Held bytes with which the next message is whole, as far as is known."""
        self._flowing = False
        """The sink takes what comes. Not before the answer's headers have been found good."""
        self.ended = False
        """No more will come."""
        self._error: Exception | None = None
        self.due = False
        """The connection will call `deliver`."""
        self._settle_at_bytes = settle_at_bytes
        """How much of the following may gather."""
        self._uncounted_bytes = 0
        """Arrived, and not yet counted against the stream's window."""
        self._unused_bytes = 0
        """Of those held: not to be given back, since the sink is full."""
        self._used_bytes = 0
        """To be given back to the stream's window."""

    # The connection's side.

    def take(self, data: bytes) -> None:
        """Take the payload of one DATA frame; `deliver` follows, and counts all of a read at once."""
        self._taken.append(data)

    def add(self, data: bytes, ack_size: int) -> None:
        """Take a payload that h2 has counted, padding too. As grpclib calls it."""
        self._count()
        self._held.append(data)
        self._held_bytes += len(data)
        self._unused_bytes += len(data)
        self._used_bytes += ack_size - len(data)
        self.deliver()

    def deliver(self) -> None:
        """Hand over what is whole, as far as the sink takes it."""
        self.due = False
        self._count()
        if self._flowing:
            self._feed_all()
            self._sink.flush()
            if self.ended or not self._flowing:
                self._stir()
        # A part of a message is given back too: it may be larger than the window.
        unused = 0 if self._flowing else min(self._unused_bytes, self._held_bytes)
        self._used_bytes += self._unused_bytes - unused
        self._unused_bytes = unused
        if max(self._uncounted_bytes, self._used_bytes) >= self._settle_at_bytes:
            self._settle(self._uncounted_bytes, self._used_bytes)
            self._uncounted_bytes = self._used_bytes = 0

    def eof(self) -> None:
        """No more will come. As grpclib calls it."""
        self.ended = True
        self._stir()

    def unacked_size(self) -> int:
        """Return what is to be given back to the stream's window at its end: nothing any more. As grpclib calls it."""
        return 0

    # The owner's side.

    @property
    def full(self) -> bool:
        """The sink takes no more; `resume` once it has room."""
        return not self._flowing

    def resume(self) -> None:
        """Let messages through: at first when the answer's head is good, then when the sink has room again."""
        self._flowing = True
        self.deliver()

    def finished(self) -> bool:
        """Say whether the stream has ended and all of it was taken.

        Raises:
            BadBackend: a message is compressed or over the limit.
            Exception: as `parse`, or grpclib's `ProtocolError` for a message that broke off.
        """
        if self._error is not None:
            raise self._error
        if not self.ended or self.full:
            return False
        if self._held_bytes:
            raise ProtocolError("The last message broke off.")
        return True

    def _count(self) -> None:
        """Count what was taken among what is held."""
        arrived = sum(map(len, self._taken))
        self._held += self._taken
        self._taken.clear()
        self._held_bytes += arrived
        self._unused_bytes += arrived
        self._uncounted_bytes += arrived

    def _feed_all(self) -> None:
        try:
            while self._held_bytes >= self._needed_bytes and self._flowing:
                self._feed(self._held[0] if len(self._held) == 1 else b"".join(self._held))
        except Exception as error:  # noqa: BLE001 (raised in the task that owns the call)
            self._error = error
            self._flowing = False

    def _feed(self, data: bytes) -> None:
        """Cut `data`, which is all that is held, into messages."""
        at, end, flowing = 0, len(data), self._flowing
        prefix, parse, feed, limit = (
            _PREFIX.unpack_from,
            self._parse,
            self._sink.feed,
            self._limit_bytes,
        )
        self._needed_bytes = _PREFIX_BYTES
        while flowing and end - at >= _PREFIX_BYTES:
            compressed, size = prefix(data, at)
            if compressed or size > limit:
                self._refuse(size, compressed=bool(compressed))
            begin = at + _PREFIX_BYTES
            stop = begin + size
            if stop > end:
                self._needed_bytes = stop - at
                break
            flowing = feed(parse(data[begin:stop]), size)
            at = stop
        self._flowing = flowing
        self._held_bytes = end - at
        self._held = [data[at:]] if at < end else []

    def _refuse(self, size: int, *, compressed: bool) -> None:
        log.warning(
            "engine_message_refused", compressed=compressed, bytes=size, limit=self._limit_bytes
        )
        raise BadBackend("The engine sent a message that is compressed or over the size limit.")
