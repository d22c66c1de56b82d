"""hypercorn's HTTP/2, with streams that end and buffers that fill.

hypercorn 0.18 leaves a stream open for ever whose application ended before its answer did (it crashed, was drained, or gave a
client up that does not read): the client waits, and the buffer stays. Here such a stream is reset. And it takes a stream whose
window is closed for one that has room again, so that what a client does not read piles up without bound and nobody waits. Here
whoever writes waits until there is room.
"""

from contextlib import suppress

import hypercorn.protocol
import hypercorn.protocol.h2
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)


class BoundedBuffer(StreamBuffer):
    """What waits for one stream's window: `BUFFER_HIGH_WATER` bytes and one piece at most."""

    async def push(self, data: bytes) -> None:
        """Take `data`, and wait while there is too much."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= BUFFER_HIGH_WATER and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """Return what may go out now."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_HIGH_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class EndingH2Protocol(H2Protocol):
    """hypercorn's protocol; see the module's docstring."""

    async def stream_send(self, event: Event) -> None:
        """Do what a stream asks for."""
        if isinstance(event, StreamClosed):
            self._reset_unfinished(event.stream_id)
        await super().stream_send(event)
        if isinstance(event, StreamClosed):
            await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        if stream_id in self.stream_buffers:
            await super()._send_data(stream_id)

    def _reset_unfinished(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer._complete:
            return
        del self.stream_buffers[stream_id]
        self.priority.remove_stream(stream_id)
        with suppress(ProtocolError):  # the client has reset it
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)


# hypercorn makes both by these names, where a connection turns out to speak HTTP/2 and where a stream begins.
setattr(hypercorn.protocol, "H2Protocol", EndingH2Protocol)  # noqa: B010 (not a name that it exports)
setattr(hypercorn.protocol.h2, "StreamBuffer", BoundedBuffer)  # noqa: B010
