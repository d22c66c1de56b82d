"""What h2 keeps of a connection to an engine, with what h2 does otherwise than we need it."""

import contextlib
from typing import Any

from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event
from h2.exceptions import StreamClosedError
from hyperframe.frame import WindowUpdateFrame


class EnduringConnection(H2Connection):
    """h2's connection, which would take no more frames once GOAWAY has come.

    And whose window would be used up by what waits in streams that nobody reads, so that all others stop. Here what has
    arrived opens the connection's window again at once; each stream's own window bounds what it can hold.
    """

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

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]
