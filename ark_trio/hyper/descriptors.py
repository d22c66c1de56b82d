"""Descriptors: as many as we may have, and a line in the log when they run out and when there are some again.

Trio's accept loop then waits a tenth of a second and tries again, with a traceback in the log each time.
"""

import logging
import resource
import time

import structlog

log = structlog.get_logger()

_CALM_S = 2.0
"""Without a failure for so long, accepting is well again."""
_ACCEPT_LOGGER = "trio.serve_listeners"


def raise_descriptor_limit() -> None:
    """Have as many descriptors as we may: each client takes one, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


class _Episodes(logging.Filter):
    """Says once that accepting pauses and once that it goes on, however often it is tried in between."""

    _began: float | None = None
    _last = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop Trio's record; log the first of an episode in our own words."""
        self._last = time.monotonic()
        if self._began is None:
            self._began = self._last
            log.warning("accept_paused", reason=record.getMessage().partition(";")[0])
        return False

    def accepted(self) -> None:
        """Note that a connection came in. One between two failures is no end of them."""
        if self._began is not None and time.monotonic() - self._last > _CALM_S:
            log.warning("accept_resumed", paused_s=round(self._last - self._began, 1))
            self._began = None


_episodes = _Episodes()
note_accepted = _episodes.accepted


def quiet_accept() -> None:
    """Have the log say once, not ten times a second, that connections can't be accepted."""
    logging.getLogger(_ACCEPT_LOGGER).addFilter(
        _episodes
    )  # once: a filter that is there is not added again
