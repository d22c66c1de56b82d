"""Frames of HTTP/2 that cost more to take than to send, and how many of them are taken."""

from collections.abc import Callable

from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    StreamReset,
    UnknownFrameReceived,
)

from ark_trio.config import Limits
from ark_trio.hyper.budget import Budget

_CONTROL = (PingReceived, RemoteSettingsChanged, PriorityUpdated, UnknownFrameReceived)


class Floods:
    """Counts them for one connection."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._resets = Budget(limits.max_http2_resets_per_s, clock)
        self._control = Budget(limits.max_http2_control_per_s, clock)

    def seen_in(self, event: Event) -> str | None:
        """Take an event into account; the name of the flood that it is part of, if it is of one."""
        # Rapid reset: each opens a request that is given up at once, and so never counts as one at once (CVE-2023-44487).
        if isinstance(event, StreamReset) and event.remote_reset:
            return None if self._resets.spend() else "resets"
        if isinstance(event, _CONTROL) or _is_empty(event):
            return None if self._control.spend() else "control frames"
        return None


def _is_empty(event: Event) -> bool:
    return isinstance(event, DataReceived) and not event.data and event.stream_ended is None
