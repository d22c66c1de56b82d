"""One HTTP/2 connection to an engine, below grpclib: what is read goes to the calls, and GOAWAY lets them finish.

h2 takes 8 µs for a DATA frame, and nearly every frame that an engine sends is one with a whole message. Those of calls that run
are cut out of what was read right here and given to the call's `Inlet`; header blocks that h2 has read before pass it too (`blocks.py`);
it gets everything else, in order. The books of flow control stay h2's: what arrived is told to it in sums.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, cast

import structlog
import trio
from grpclib.const import Status
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, _set_nodelay
from grpclib.protocol import Stream as H2Stream
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
)
from h2.exceptions import ProtocolError, StreamClosedError

from ark_trio.rpc.enduring import EnduringConnection
from ark_trio.rpc.frames import DATA, HEAD_BYTES, LAST_HEADERS, OTHER, count_control, find_frames
from ark_trio.rpc.greeting import greet
from ark_trio.rpc.inlet import Inlet

log = structlog.get_logger()

_READ_BYTES = 64 << 10
GATHERING_STREAMS = 64
"""So many answers at once make it worth a pause to read what comes for several of them together."""
MAX_CONTROL_PER_S = 1000
"""Frames of a connection that belong to no call: some ten pings a second are the most that engines have to say."""


class ClientProtocol(H2Protocol):
    """One connection. It goes on after GOAWAY until its last stream has ended."""

    def __init__(
        self,
        *args: Any,
        gather_s: Callable[[], float],
        on_lost: Callable[["ClientProtocol"], None],
        on_released: Callable[[], None],
    ) -> None:
        super().__init__(*args)
        self._gather_s = gather_s
        self._on_lost = on_lost
        self._on_released = on_released
        self.transport: asyncio.Transport
        self.settled = asyncio.Event()
        """The engine's settings have come, or nothing will."""
        self.lost = False
        self.going_away = False
        self._most_streams = 0
        """That the engine allows at a time; known once `settled`."""
        self._inlets: dict[int, Inlet[Any]] = {}
        """Of the calls whose DATA frames are cut out here, by stream."""
        self._rest = b""
        """The beginning of a frame."""
        self._midway = False
        """h2 has only the beginning of a frame or of a header block."""
        self._second = self._control = 0
        """The second at hand, and the frames in it that belong to no call."""

    @property
    def has_room(self) -> bool:
        """Another stream may begin here."""
        if (
            self.lost
            or self.going_away
            or not self.settled.is_set()
            or self.connection.is_closing()
        ):
            return False
        return len(self.processor.streams) < self._most_streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib's, except for the classes of connection and processor."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _set_nodelay(sock)
        h2 = EnduringConnection(config=self.h2_config)
        greet(
            h2,
            stream_window_bytes=self.config.http2_stream_window_size,
            connection_window_bytes=self.config.http2_connection_window_size,
        )
        self.connection = _Connection(h2, self.transport, config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = _Processor(self.handler, self.connection, self)

    def read_in_trio(self) -> None:
        """Have a Trio task of the loop's read the socket: asyncio's way costs two more task switches a read, 30 µs.

        For a connection that is made. TLS stays asyncio's.
        """
        if self.transport.get_extra_info("sslcontext") is not None or self.transport.is_closing():
            return
        self.transport.pause_reading()
        loop = cast(Any, asyncio.get_running_loop())
        loop.run_trio_task(self._read, self.transport.get_extra_info("socket").fileno())

    async def _read(self, fd: int) -> None:
        """Read until the connection is lost. Trio-flavoured."""
        while not self.transport.is_closing():
            try:
                await trio.lowlevel.wait_readable(fd)
                if (
                    self.transport.is_closing()
                ):  # or closed, and the number is another socket's by now
                    return
                data = os.read(fd, _READ_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except (OSError, trio.ClosedResourceError):
                data = b""
            if not data:
                self.transport.abort()
                return
            try:
                self.data_received(data)
            except Exception:
                log.exception("engine_connection_crashed")
                self.transport.abort()
            # After a read and not before: what comes after a silence is not held up.
            if (pause_s := self._pause_s(len(data))) > 0:
                await trio.sleep(pause_s)

    def _pause_s(self, size: int) -> float:
        """Return how long to let tokens gather after a read of `size` bytes: where many streams bring little at a time, so that it pays.

        An engine that waits for us, with full windows or for the next of a few requests, would only wait longer.
        """
        many = len(self._inlets) >= GATHERING_STREAMS
        return self._gather_s() if many and size < _READ_BYTES // 2 else 0.0

    def data_received(self, data: bytes) -> None:
        """Give each frame to its call, or to h2."""
        data = self._rest + data
        frames, whole = find_frames(data, self.h2.max_inbound_frame_size)
        self._rest = data[whole:]
        filled: list[Inlet[Any]] = []
        arrived = 0
        inlets = self._inlets
        for kind, stream_id, begin, end in frames:
            if kind == DATA and stream_id in inlets and not self._midway:
                inlet = inlets[stream_id]
                inlet.take(data[begin:end])
                arrived += end - begin
                if not inlet.due:
                    inlet.due = True
                    filled.append(inlet)
            elif kind <= DATA or not self._take_known(
                stream_id, data[begin:end], last=kind == LAST_HEADERS
            ):
                self._give_h2(data[begin if kind == OTHER else begin - HEAD_BYTES : end])
        self._deliver(filled, arrived)

    def _deliver(self, filled: list[Inlet[Any]], arrived: int) -> None:
        try:
            for inlet in filled:
                inlet.deliver()
            if arrived and not self.lost:
                self.h2.take_arrival(arrived)
                self.connection.flush()
        except ProtocolError:  # more than a window allowed
            log.warning("engine_broke_protocol", exc_info=True)
            self.processor.close("Protocol error")

    def _give_h2(self, data: bytes) -> None:
        if not data or self.lost:
            return
        if self._is_flood(data):
            log.warning("engine_floods")
            self.processor.close("Protocol error")
            self.transport.abort()
            return
        super().data_received(data)
        self._midway = self.h2.midway

    def _take_known(self, stream_id: int, block: bytes, *, last: bool) -> bool:
        """Take a header block past h2, if it need not see it."""
        if self._midway or self.lost:
            return False
        events = self.h2.take_known(stream_id, block, last=last)
        for event in events or ():
            self.processor.process(event)
        return events is not None

    def _is_flood(self, data: bytes) -> bool:
        """Whether the engine says so much beside its calls that streams of others would wait: h2 takes 170 µs for SETTINGS."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._control = second, 0
        self._control += count_control(data)
        return self._control > MAX_CONTROL_PER_S

    def adopt(self, stream_id: int, inlet: Inlet[Any]) -> None:
        """Cut the DATA frames of a stream out for `inlet` from now on, unless h2 must see them to check their sum."""
        h2_stream = self.h2.streams.get(stream_id)
        if h2_stream is not None and h2_stream._expected_content_length is None:
            self._inlets[stream_id] = inlet

    def settle(self, stream_id: int, arrived: int, used: int) -> None:
        """Count what has arrived of a stream against its window, and give back what was used.

        Raises:
            FlowControlError: the engine has sent more than it may.
        """
        h2_stream = self.h2.streams.get(stream_id)
        if h2_stream is not None and not self.lost:
            h2_stream._inbound_window_manager.window_consumed(arrived)
            self.h2.acknowledge_received_data(used, stream_id)
            self.connection.flush()

    def resume_writing(self) -> None:
        """The socket takes more again."""
        super().resume_writing()
        for stream in tuple(self.processor.streams.values()):
            stream.window_updated.set()

    @property
    def h2(self) -> EnduringConnection:
        """What h2 knows of the connection."""
        return cast(EnduringConnection, self.connection._connection)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the calls of this connection."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() != -1:
            trio.lowlevel.notify_closing(sock.fileno())
        super().connection_lost(exc)

    def settle_down(self) -> None:
        """The engine's settings have come."""
        self._most_streams = self.h2.remote_settings.max_concurrent_streams
        self.settled.set()

    def end(self) -> None:
        """Take no more streams; nothing comes any more."""
        self.lost = True
        self.settled.set()
        self._on_lost(self)

    def go_away(self, last_stream_id: int) -> None:
        """The engine takes no new streams here; those up to `last_stream_id` go on."""
        self.going_away = True
        log.info("engine_goes_away", streams=len(self.processor.streams))
        for stream_id, stream in tuple(self.processor.streams.items()):
            if stream_id > last_stream_id:
                stream.__terminated__("Connection lost")
        self.look_for_room()

    def hold(self, stream_id: int, call: H2Stream) -> None:
        """Tell `call` of what comes of its stream, until it is released."""
        self.processor.streams[stream_id] = call

    def release(self, stream_id: int) -> None:
        """Forget a stream that has ended."""
        del self.processor.streams[stream_id]
        self._inlets.pop(stream_id, None)
        self.h2.forget(stream_id)
        self.look_for_room()

    def look_for_room(self) -> None:
        """There may be room now, or nothing left to stay for."""
        self._on_released()
        if self.going_away and not self.processor.streams:
            self.processor.close("Connection given up")


class _Connection(Connection):
    """grpclib's, which closes itself when a ping was not answered; the calls hear of that a moment later."""

    def flush(self) -> None:
        """Write what h2 has to say, if that is still possible."""
        if not self.is_closing():
            super().flush()


class _Processor(EventsProcessor):
    """grpclib's events, with room, settings and GOAWAY told to the protocol."""

    def __init__(self, handler: Any, connection: Connection, protocol: ClientProtocol) -> None:
        super().__init__(handler, connection)
        self._protocol = protocol

    def register(self, stream: H2Stream) -> Callable[[], None]:
        """Know the stream of a call that grpclib itself makes, until it is released."""
        release = super().register(stream)

        def release_and_tell() -> None:
            release()
            self._protocol.look_for_room()

        return release_and_tell

    def close(self, reason: str = "Connection closed") -> None:
        """End the connection and the calls on it. The first reason counts: that the connection is lost then, too, is ours."""
        if not self._protocol.lost:
            self._protocol.end()
            super().close(reason)

    def process(self, event: Event) -> None:
        """Heed an event; an engine that sends what h2 knows and grpclib does not keeps its connection."""
        try:
            super().process(event)
        except NotImplementedError as error:
            log.debug("engine_event_ignored", reason=repr(error))

    def process_response_received(self, event: ResponseReceived) -> None:
        """Take the head of an answer; from here on its DATA need not pass h2."""
        super().process_response_received(event)
        stream = self.streams.get(event.stream_id)
        if stream is not None and isinstance(stream.buffer, Inlet):
            self._protocol.adopt(event.stream_id, stream.buffer)

    def process_request_received(self, event: RequestReceived) -> None:
        """Refuse a stream that an engine begins: nobody would release it, so it would take a call's room for ever."""
        with contextlib.suppress(StreamClosedError):  # or it is over within the same read
            self._protocol.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)

    def process_data_received(self, event: DataReceived) -> None:
        """Take what has arrived, read or not."""
        self._protocol.h2.acknowledge_arrival(event.flow_controlled_length)
        super().process_data_received(event)

    def process_remote_settings_changed(self, event: RemoteSettingsChanged) -> None:
        """Take the engine's settings."""
        super().process_remote_settings_changed(event)
        self._protocol.settle_down()

    def process_stream_ended(self, event: StreamEnded) -> None:
        """A stream that ends without trailers has no status, and none will come: grpclib would wait for them."""
        stream = self.streams.get(event.stream_id)
        if stream is not None and stream.trailers is None:
            stream.trailers = [("grpc-status", str(Status.UNKNOWN.value))]
            stream.trailers_received.set()
        super().process_stream_ended(event)

    def process_connection_terminated(self, event: ConnectionTerminated) -> None:
        """Heed GOAWAY."""
        self._protocol.go_away(event.last_stream_id or 0)
