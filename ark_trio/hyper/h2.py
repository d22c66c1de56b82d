"""hypercorn's HTTP/2, with streams that end and buffers that fill.

hypercorn 0.18 leaves a stream open for ever whose application ended before its answer did (it crashed, was drained, or gave a
client up that does not read): the client waits, and the buffer stays. Here such a stream is reset. And it takes a stream whose
window is closed for one that has room again, so that what a client does not read piles up without bound and nobody waits. Here
whoever writes waits until there is room. It keeps a place in its tree for each PRIORITY frame, of streams that are over too, and ends
the connection at the thousandth or at a parent that it doesn't know; here all streams are alike (RFC 9113, 5.3.2). Nor does one stream end the others here: a body that goes on after its answer, a request
during a drain, a path that is not ASCII, the thousandth request, its client's goodbye. A connection that is to end says so by GOAWAY first, so that its
client opens another one; floods end it at once (hypercorn's answer to rapid resets, pgjones/hypercorn#146, is to count requests).
"""

from contextlib import suppress
from typing import Any, cast

import structlog
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hyperframe.frame import GoAwayFrame

from ark_trio.config import Limits
from ark_trio.errors import ArkError, HeadersTooLarge, UriTooLong
from ark_trio.hyper.flood import OVERSIZED, Floods
from ark_trio.hyper.refusal import spell_refusal

log = structlog.get_logger()

_UNBOUND = 2**31 - 1
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

    def __init__(self, app: Any, config: Any, context: Any, *rest: Any) -> None:
        super().__init__(app, config, context, *rest)
        self._limits: Limits = config.limits
        self._floods = Floods(self._limits, context.time)
        self._flooded = False
        self._drain_watch = context.single_task_class()
        self._watching = False
        self._leaving = self._heard_goodbye = False
        self._send_frame = self.connection.send_data
        setattr(self.connection, "send_data", self._send_counted)  # noqa: B010 (a method)
        table = self.connection._frame_dispatch_table
        self._end_at_goodbye = table[GoAwayFrame]
        table[GoAwayFrame] = self._hear_goodbye
        # hypercorn offers WebSocket over HTTP/2, and tells its client of a header limit that h2 does not hold.
        self.connection.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 0
        self.connection.local_settings.acknowledge()
        self.connection.decoder.max_header_list_size = self._limits.max_header_bytes

    async def initiate(self, *upgrade: Any) -> None:
        """Begin."""
        await super().initiate(*upgrade)
        # The client has been told; h2 would end the connection, and all its streams, for one too many.
        self.connection.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = _UNBOUND
        self.connection.local_settings.acknowledge()
        self._watching = True
        await self._drain_watch.restart(self.task_group, self._leave_at_drain)

    async def handle(self, event: ConnectionEvent) -> None:
        """Take what the connection brings. Once it is closed, nobody waits for a window any more."""
        if isinstance(event, RawData) and await self._is_flood(self._floods.seen_in(event.data)):
            return
        if isinstance(event, Closed):
            if self._watching:
                self._watching = False
                await self._drain_watch.stop()
            await self._say_goodbye()
        await super().handle(event)
        self._leaving |= self._heard_goodbye  # not before what came with it
        await self._close_if_left()
        if isinstance(event, Closed):
            for stream_id in tuple(self.stream_buffers):
                await self._give_up(stream_id, None)

    async def stream_send(self, event: StreamEvent) -> None:
        """Do what a stream asks for."""
        if isinstance(event, StreamClosed):
            buffer = self.stream_buffers.get(event.stream_id)
            if buffer is not None and not buffer.complete:
                await self._give_up(event.stream_id, ErrorCodes.INTERNAL_ERROR)
            elif buffer is not None:
                await self._send_data(
                    event.stream_id
                )  # the end, before hypercorn may close the connection
        await super().stream_send(event)
        if isinstance(event, StreamClosed):
            await self._flush()
            await self._close_if_left()

    async def _handle_events(self, events: list[Event]) -> None:
        for event in events:
            if self._flooded:
                return
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
                    if not event.remote_reset:
                        await self._is_flood(self._floods.provoked())
                elif isinstance(event, RemoteSettingsChanged):
                    self._keep_table_small()
        await self._flush()

    def _keep_table_small(self) -> None:
        """Remember few of the headers that we send, whatever the client would: each is compared with all (0.3 ms at 3,000)."""
        encoder = self.connection.encoder
        encoder.header_table_size = min(encoder.header_table_size, HEADER_TABLE_BYTES)

    async def _take_request(self, event: RequestReceived) -> None:
        """Begin a stream, or refuse it; what one request is like is no other stream's business."""
        headers = event.headers
        fields = dict(cast(Any, headers))
        path = fields.get(b":path", b"")
        if self.context.terminated.is_set() or self._leaving or self._is_full:
            self._reset(event.stream_id, ErrorCodes.REFUSED_STREAM)  # safe to retry elsewhere
            await self._is_flood(self._floods.provoked())
        elif not _is_plain(fields.get(b":method", b""), path):
            self._reset(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            await self._is_flood(self._floods.provoked())
        elif len(path) > self._limits.max_request_line_bytes:
            self._refuse(event.stream_id, UriTooLong("The request line is too long."))
        elif len(headers) > self._limits.max_headers:
            self._refuse(event.stream_id, HeadersTooLarge("The request has too many headers."))
        else:
            await super()._handle_events([event])
            if self.keep_alive_requests >= self._limits.max_connection_requests:
                await self._leave()
            # hypercorn ends the connection, and all streams, when this passes its own limit.

    @property
    def _is_full(self) -> bool:
        return len(self.streams) >= self._limits.max_http2_streams

    def _refuse(self, stream_id: int, error: ArkError) -> None:
        """Answer a request that was not begun."""
        fields, body = spell_refusal(error)
        try:
            self.connection.send_headers(stream_id, [(b":status", b"%d" % error.status), *fields])
            self.connection.send_data(stream_id, body, end_stream=True)
        except ProtocolError:  # it leaves no room for an answer
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
        else:
            self._reset(stream_id, ErrorCodes.NO_ERROR)

    async def _leave_at_drain(self) -> None:
        await self.context.terminated.wait()
        self._watching = False  # this task ends itself; nobody is to stop it
        await self._leave()

    async def _leave(self) -> None:
        """Have the client open another connection; the streams that it has here go on (RFC 9113, 6.8)."""
        await self._say_goodbye()
        await self._close_if_left()

    async def _say_goodbye(self) -> None:
        """Tell the client that no new stream is taken."""
        if not self._leaving:
            self._leaving = True
            # h2's own way takes the connection for closed and would send nothing more.
            frame = GoAwayFrame(0, last_stream_id=self.connection.highest_inbound_stream_id)
            await self._flush()
            await self.send(RawData(frame.serialize()))

    async def _close_if_left(self) -> None:
        if self._leaving and not self.streams and not self.stream_buffers and not self.closed:
            await self.send(Closed())

    async def _is_flood(self, kind: str | None) -> bool:
        """End a connection that asks for nothing, very often. Whether it has been ended."""
        if kind is not None and not self._flooded:
            log.info("http2_flood", kind=kind)
            self._flooded = self._leaving = True
            calm, size = ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.FRAME_SIZE_ERROR
            self.connection.close_connection(size if kind == OVERSIZED else calm)
            await self._flush()
            await self.send(Closed())
        return self._flooded

    def _send_counted(self, *frame: Any, **more: Any) -> None:
        self._floods.sent()
        self._send_frame(*frame, **more)

    async def _priority_updated(self, _event: Any) -> None:
        """All streams are alike."""

    def _hear_goodbye(self, frame: GoAwayFrame) -> Any:
        """Take no new stream of a client that leaves; h2 would end those that it waits for."""
        if frame.error_code:
            return self._end_at_goodbye(frame)
        self._heard_goodbye = True
        return [], []

    async def _send_data(self, stream_id: int) -> None:
        if stream_id not in self.stream_buffers:
            return
        with suppress(
            KeyError
        ):  # reset by the client while its bytes left: hypercorn asks once more
            await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:
            # Answered in full; if the client is still sending its request, it may stop (RFC 9113, 8.1).
            stream = self.connection.streams.get(stream_id)
            if stream is not None and not stream.closed:
                self._reset(stream_id, ErrorCodes.NO_ERROR)
                await self._flush()
            await self._close_if_left()

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


def _is_plain(method: bytes, path: bytes) -> bool:
    """Whether hypercorn can take a request: it fails, and the connection with it, on what is not ASCII or has no path."""
    return method.isascii() and method != b"CONNECT" and path.isascii() and path.startswith(b"/")
