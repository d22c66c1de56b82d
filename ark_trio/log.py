"""The log: JSON lines under systemd and in containers, readable text on a terminal, always on standard error.

What the libraries log through the standard library comes out the same way.
"""

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TextIO, cast

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from ark_trio.config import LogFormat, Settings

log = structlog.get_logger()

_QUIETED = {
    "asyncio": logging.INFO,
    "hpack": logging.INFO,  # several lines a header at debug: the service would be drowned and slowed
    "h2": logging.INFO,
    "httpcore2": logging.WARNING,
    "httpx2": logging.WARNING,  # a line a request at info, and the engine's driver makes many
}
"""Libraries that say too much, and the least severe that is heard of them."""


def configure_logging(settings: Settings) -> None:
    """Set up all logging of this process, and the first time warn of `ARK_…` variables that mean nothing.

    Loggers got earlier follow. Calling it again replaces what it did before.
    """
    first = not structlog.is_configured()
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    render = _renderers(settings.log.format)
    writer = structlog.WriteLogger(cast(TextIO, _Unfailing(sys.stderr)))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_chain(render)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,  # module-level loggers must follow a second call
    )
    _route_standard_logging(level, render)
    if first and settings.unknown_variables:
        log.warning("variables_unknown", names=list(settings.unknown_variables))


def _chain(render: list[Processor]) -> list[Processor]:
    """Return what makes a line of an event of ours; nearly all are a request's, so for JSON it is one step."""
    return [_json_event] if _json_line in render else [*_shared(), *render]


def _shared() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderers(wanted: LogFormat) -> list[Processor]:
    on_terminal = sys.stderr.isatty()
    if wanted == "json" or (wanted == "auto" and not on_terminal):
        return [structlog.processors.format_exc_info, _json_line]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=plain)]


def _json_event(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """As `_shared` and `_renderers` do it step by step, in half the time."""
    event = structlog.processors.add_log_level(logger, method, event)
    event["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return _json_line(logger, method, event)


def _json_line(_: WrappedLogger, __: str, event: EventDict) -> str:
    """One line; time, level and event come first, since people read the start of a line."""
    ordered = {"timestamp": None, "level": None, "event": None, **event}
    for option in (None, orjson.OPT_NON_STR_KEYS):  # which takes half as long again
        try:
            return orjson.dumps(ordered, default=repr, option=option).decode()
        except TypeError:
            pass
    # E.g. an integer over 64 bits or a lone surrogate: never lose the event over it.
    return orjson.dumps({key: ascii(value) for key, value in ordered.items()}).decode()


def _route_standard_logging(level: int, render: Sequence[Processor]) -> None:
    handler = logging.StreamHandler(cast(TextIO, _Unfailing(sys.stderr)))
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared()],
            processors=[ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, least in _QUIETED.items():
        logging.getLogger(name).setLevel(max(level, least))
    hypercorn = logging.getLogger("hypercorn.error")
    hypercorn.filters = [_Redirect(handler, level)]


class _Unfailing:
    """Standard error, whose reader may be gone or its disk full: no reason for a request or a clean stop to fail."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, or don't."""
        try:  # noqa: SIM105 (a context manager takes longer than all else here)
            self._stream.write(text)
        except (OSError, ValueError):
            pass

    def flush(self) -> None:
        """Flush, or don't."""
        try:  # noqa: SIM105
            self._stream.flush()
        except (OSError, ValueError):
            pass


class _Redirect(logging.Filter):
    """Sends a logger's records to our handler and nowhere else.

    Hypercorn gives its logger a handler of its own when the worker starts, after us; a logger's filters come before
    whatever handlers it has by then.
    """

    def __init__(self, handler: logging.Handler, level: int) -> None:
        super().__init__()
        self._handler = handler
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Handle the record here; tell the logger to drop it."""
        if record.levelno >= self._level:
            self._handler.handle(record)
        return False
