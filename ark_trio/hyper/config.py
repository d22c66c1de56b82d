"""hypercorn's settings, each limit explicit."""

import logging

from hypercorn.config import Config

from ark_trio.config import Settings

IDLE_S = 75.0
"""Time that a connection may stay open between two requests."""


class HyperConfig(Config):
    """hypercorn's settings and ours."""

    stalled_write_s: float = 30.0
    """Time that a client may go without taking a byte of what waits for it."""
    max_pipelined_bytes: int = 64 << 10
    """What a client may send ahead of the answer that it waits for."""


def hyper_config(settings: Settings) -> HyperConfig:
    """Return them as the settings say."""
    config = HyperConfig()
    config.accesslog = None  # one line a request is written by our own record
    config.errorlog = logging.getLogger("hypercorn.error")  # ours to format, not hypercorn's
    config.keep_alive_timeout = IDLE_S
    config.include_server_header = False
    config.stalled_write_s = settings.limits.stalled_write_s
    return config
