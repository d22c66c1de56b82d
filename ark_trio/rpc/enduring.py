"""What h2 keeps of a connection to an engine, with what h2 does otherwise than we need it.

A request's two frames are spelled here: h2 counts all streams for each new one, and builds, checks and parses what we know to be
right. So do an answer's header blocks pass it that it has found good before. Its state machines and windows see each step as they
would have.
"""

import contextlib
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, ConnectionState, H2Connection
from h2.events import ConnectionTerminated, Event, ResponseReceived, TrailersReceived
from h2.exceptions import StreamClosedError
from h2.stream import StreamInputs, StreamState
from hyperframe.frame import WindowUpdateFrame

from ark_trio.rpc.blocks import KnownBlocks
from ark_trio.rpc.frames import spell_data, spell_head_frame

_ANSWERED: Final = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)
"""Where a stream is whose answer has not ended."""


class EnduringConnection(H2Connection):
    """h2's connection, which would take no more frames once GOAWAY has come.

    And whose window would be used up by what waits in streams that nobody reads, so that all others stop. Here what has
    arrived opens the connection's window again at once; each stream's own window bounds what it can hold.
    """

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._blocks = KnownBlocks(self.decoder)

    def open_stream(self, stream_id: int, head: bytes) -> None:
        """Begin a stream with a header block that fits into a frame. Whoever opens streams has counted them.

        Raises:
            ProtocolError: the connection is over, as for `send_headers`.
        """
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        stream.state_machine.process_input(StreamInputs.SEND_HEADERS)
        self._data_to_send += spell_head_frame(stream_id, head)

    def send_piece(self, stream_id: int, data: bytes, *, last: bool) -> None:
        """Send a piece of a stream's body that its window and a frame have room for.

        Raises:
            ProtocolError: connection or stream is over, as for `send_data`.
        """
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        stream = self._get_stream_by_id(stream_id)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if last:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= len(data)
        self.outbound_flow_control_window -= len(data)
        self._data_to_send += spell_data(stream_id, data, last=last)

    @property
    def midway(self) -> bool:
        """A frame or a header block has come in part: what comes now belongs to it, or is a fault."""
        return bool(self.incoming_buffer._data or self.incoming_buffer._headers_buffer)

    def take_known(self, stream_id: int, block: bytes, *, last: bool) -> list[Event] | None:
        """Take the header block of a plain HEADERS frame, if h2 has found it good before and the stream is where it belongs.

        Returns the events; None: that is for h2 to say.
        """
        stream = self.streams.get(stream_id)
        if stream is None or self.state_machine.state is not ConnectionState.CLIENT_OPEN:
            return None
        machine = stream.state_machine
        trailers = bool(machine.headers_received)
        if machine.state not in _ANSWERED or (trailers and not last):
            return None
        headers = self._blocks.find(block, trailers=trailers)
        if headers is None:
            return None
        events: list[Any] = machine.process_input(StreamInputs.RECV_HEADERS)
        events[0].headers = headers
        if last:
            events += machine.process_input(StreamInputs.RECV_END_STREAM)
        stream._expected_content_length = None
        return events

    def forget(self, stream_id: int) -> None:
        """Keep of a stream that has ended only how. h2 does so while it counts."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            self._closed_streams[stream_id] = self.streams.pop(stream_id).closed_by

    def take_arrival(self, size: int) -> None:
        """Count `size` bytes that have arrived past h2, and open the connection's window by as many."""
        self._inbound_flow_control_window_manager.window_consumed(size)
        self.acknowledge_arrival(size)

    def acknowledge_arrival(self, size: int) -> None:
        """Open the connection's window by `size` bytes that have arrived."""
        increment = self._inbound_flow_control_window_manager.process_bytes(size)
        if increment:
            frame = WindowUpdateFrame(0)
            frame.window_increment = increment
            self._prepare_for_sending([frame])

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Open a stream's window by what has been read of it; h2's own opens the connection's too."""
        with contextlib.suppress(StreamClosedError):
            stream = self._get_stream_by_id(stream_id)
            self._prepare_for_sending(stream.acknowledge_received_data(acknowledged_size))

    def _receive_headers_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        """Learn what is good, except what tells its body's length: h2 must see those bodies."""
        frames, events = super()._receive_headers_frame(frame)
        (event, *_), stream = events, self.streams[frame.stream_id]
        if (
            isinstance(event, ResponseReceived | TrailersReceived)
            and stream._expected_content_length is None
        ):
            trailers = isinstance(event, TrailersReceived)
            self._blocks.learn(frame.data, event.headers, trailers=trailers)
        return frames, events

    def _local_settings_acked(self) -> dict[Any, Any]:
        """Judge anew by the limits that hold now."""
        self._blocks.forget()
        return super()._local_settings_acked()

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
