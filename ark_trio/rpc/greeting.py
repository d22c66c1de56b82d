"""How an HTTP/2 connection begins here: with windows of our own size."""

from collections.abc import Mapping

from h2.connection import H2Connection
from h2.settings import SettingCodes


def greet(
    h2: H2Connection,
    *,
    stream_window_bytes: int,
    connection_window_bytes: int,
    settings: Mapping[int, int] | None = None,
) -> None:
    """Say what we say first. The connection's window can only grow, and begins as large as a stream's of old (RFC 9113, 6.9.2)."""
    h2.initiate_connection()
    initial = h2.local_settings.initial_window_size
    if connection_window_bytes > initial:
        h2.increment_flow_control_window(connection_window_bytes - initial)
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: stream_window_bytes, **(settings or {})})
