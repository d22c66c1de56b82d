"""hypercorn's settings, each limit explicit."""

import logging
from typing import Any

from hypercorn.config import Config

from ark_trio.config import Limits, Settings
from ark_trio.hyper.door import Door

_BACKLOG = 1024


class HyperConfig(Config):
    """hypercorn's settings and ours."""

    limits: Limits
    door: Door


def hyper_config(settings: Settings) -> HyperConfig:
    """Return them as the settings say."""
    config = HyperConfig()
    config.accesslog = None  # one line a request is written by our own record
    config.errorlog = logging.getLogger("hypercorn.error")  # ours to format, not hypercorn's
    config.include_server_header = False
    set_limits(config, settings.limits)
    return config


def set_limits(config: Any, limits: Limits) -> None:
    """Give `config` our limits: one of ours, or hypercorn's class itself where its own command makes the instances."""
    config.limits = limits
    config.door = getattr(config, "door", None) or Door(limits)
    config.door.limits = limits
    config.backlog = _BACKLOG
    config.ssl_handshake_timeout = limits.head_s
    config.keep_alive_timeout = limits.idle_s
    config.keep_alive_max_requests = limits.max_connection_requests
    config.h11_max_incomplete_size = limits.max_header_bytes
    config.h2_max_concurrent_streams = limits.max_http2_streams
    config.h2_max_header_list_size = limits.max_header_bytes
