"""hypercorn's HTTP/2, with streams that end and buffers that fill.

hypercorn 0.18 leaves a stream open for ever whose application ended before its answer did (it crashed, was drained, or gave a
client up that does not read): the client waits, and the buffer stays. Here such a stream is reset. And it takes a stream whose
window is closed for one that has room again, so that what a client does not read piles up without bound and nobody waits. Here
whoever writes waits until there is room. Nor does one stream end the others here: a body that goes on after its answer, a request
during a drain, a path that is not ASCII, the thousandth request.
"""

from contextlib import suppress
from typing import Any, cast

import hypercorn.protocol
import hypercorn.protocol.h2
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RemoteSettingsChanged, RequestReceived, StreamReset
from h2.exceptions import ProtocolError
from hypercorn.events import Closed, Updated
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)

HEADER_TABLE_BYTES = 4096
"""HPACK's default, and all that we ever use (RFC 7541, 4.2)."""


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

    async def handle(self, event: ConnectionEvent) -> None:
        """Take what the connection brings. Once it is closed, nobody waits for a window any more."""
        await super().handle(event)
        if isinstance(event, Closed):
            for stream_id in tuple(self.stream_buffers):
                await self._give_up(stream_id, None)

    async def stream_send(self, event: StreamEvent) -> None:
        """Do what a stream asks for."""
        if isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.complete:
                await self._give_up(event.stream_id, ErrorCodes.INTERNAL_ERROR)
        await super().stream_send(event)
        if isinstance(event, StreamClosed):
            await self._flush()

    async def _handle_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, RequestReceived):
                await self._take_request(event)
            elif isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # The rest of a body whose answer is out already; hypercorn looks the stream up and crashes.
                with suppress(ProtocolError):
                    self.connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            else:
                await super()._handle_events([event])
                if isinstance(event, StreamReset):
                    await self._forget(event.stream_id)
                elif isinstance(event, RemoteSettingsChanged):
                    self._keep_table_small()
        await self._flush()

    def _keep_table_small(self) -> None:
        """Remember few of the headers that we send, whatever the client would: each is compared with all (0.3 ms at 3,000)."""
        encoder = self.connection.encoder
        encoder.header_table_size = min(encoder.header_table_size, HEADER_TABLE_BYTES)

    async def _take_request(self, event: RequestReceived) -> None:
        """Begin a stream, or refuse it; what one request is like is no other stream's business."""
        fields = dict(cast(Any, event.headers))
        path = fields.get(b":path", b"")
        if self.context.terminated.is_set():
            self._reset(event.stream_id, ErrorCodes.REFUSED_STREAM)  # safe to retry elsewhere
        elif fields.get(b":method") == b"CONNECT" or not path or not path.isascii():
            self._reset(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
        else:
            # hypercorn ends the connection, and all streams, when this passes its limit.
            self.keep_alive_requests = 0
            await super()._handle_events([event])

    async def _send_data(self, stream_id: int) -> None:
        if stream_id not in self.stream_buffers:
            return
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:
            # Answered in full; if the client is still sending its request, it may stop (RFC 9113, 8.1).
            stream = self.connection.streams.get(stream_id)
            if stream is not None and not stream.closed:
                self._reset(stream_id, ErrorCodes.NO_ERROR)
                await self._flush()

    async def _forget(self, stream_id: int) -> None:
        """Drop what is left of a stream that the client has reset, and see whether the connection is idle now."""
        await self._give_up(stream_id, None)
        await self.send(Updated(idle=self.idle))
        if self.idle and self.context.terminated.is_set():
            await self.send(Closed())

    async def _give_up(self, stream_id: int, code: ErrorCodes | None) -> None:
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
            self.priority.remove_stream(stream_id)
        if code is not None:
            self._reset(stream_id, code)

    def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        with suppress(ProtocolError):  # it is closed already
            self.connection.reset_stream(stream_id, code)


# hypercorn makes both by these names, where a connection turns out to speak HTTP/2 and where a stream begins.
setattr(hypercorn.protocol, "H2Protocol", EndingH2Protocol)  # noqa: B010 (not a name that it exports)
setattr(hypercorn.protocol.h2, "StreamBuffer", BoundedBuffer)  # noqa: B010
