"""Descriptors: as many as we may have, and one line in the log when they run out.

Trio's accept loop then waits a tenth of a second and tries again, with a traceback in the log each time.
"""

import logging
import resource
import time

import structlog

log = structlog.get_logger()

_QUIET_S = 10.0
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
    """Says once that accepting pauses, however often it is tried again."""

    last = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop Trio's record; log the first of an episode in our own words."""
        now = time.monotonic()
        if now - self.last > _QUIET_S:
            log.warning("accept_paused", reason=record.getMessage().partition(";")[0])
        self.last = now
        return False


def quiet_accept() -> None:
    """Have the log say once, not ten times a second, that connections can't be accepted."""
    logger = logging.getLogger(_ACCEPT_LOGGER)
    if not any(isinstance(each, _Episodes) for each in logger.filters):
        logger.addFilter(_Episodes())
