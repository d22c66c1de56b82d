import io
import json
import logging
import re
import sys
import warnings
from typing import Any

import pytest
import structlog
from hypercorn.config import Config

from ark_trio import log
from ark_trio.config import LogSettings, Settings
from ark_trio.log import configure_logging

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


@pytest.fixture(autouse=True)
def _restored():
    root, hypercorn = logging.getLogger(), logging.getLogger("hypercorn.error")
    before = (root.handlers, root.level, hypercorn.handlers, hypercorn.filters, hypercorn.propagate)
    structlog.reset_defaults()
    yield
    root.handlers, root.level, hypercorn.handlers, hypercorn.filters, hypercorn.propagate = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def configure(log_format="json", level="info", **settings):
    configure_logging(Settings(log=LogSettings(format=log_format, level=level), **settings))


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_line_on_standard_error(capsys):
    configure()
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("request_ended", status=200, text="zwei\nZeilen ü")
    (line,) = lines(capsys)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "request_ended",
        "status": 200,
        "text": "zwei\nZeilen ü",
        "request_id": "r1",
    }


@pytest.mark.parametrize("method", ["debug", "info", "warn", "warning", "error", "exception"])
@pytest.mark.parametrize("exc_info", [None, True, False, ValueError("odd"), "absent"])
@pytest.mark.parametrize("fields", [{}, {"status": 200, "level": "mine"}, {"n": 2**80}])
def test_one_step_makes_the_line_that_many_would(method, exc_info, fields):
    event = {"event": "e", **fields}
    if exc_info != "absent":
        event["exc_info"] = exc_info
    steps: Any = dict(event)
    for step in (*log._shared(), *log._renderers("json")):
        steps = step(None, method, steps)
    # But for the time, which goes on.
    assert STAMP.sub("", log._json_event(None, method, event)) == STAMP.sub("", steps)
    assert STAMP.search(steps)


def test_a_traceback_stays_in_its_line(capsys):
    configure()
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("request_failed")
    (line,) = lines(capsys)
    assert "ValueError: invalid literal" in line["exception"]


@pytest.mark.parametrize("value", [2**80, "\ud800", object(), {1: {2}}])
def test_a_value_that_json_lacks_never_costs_the_event(capsys, value):
    configure()
    structlog.get_logger().warning("odd_value", value=value)
    (line,) = lines(capsys)
    assert line["event"].strip("'") == "odd_value"


def test_keys_that_are_no_text_are_spelled_and_cost_the_line_nothing_else(capsys):
    configure()
    structlog.get_logger().info("counted", by_status={200: 1, None: "é"})
    (line,) = lines(capsys)
    assert line["by_status"] == {"200": 1, "null": "é"}


def test_events_below_the_level_are_dropped_also_for_libraries(capsys):
    configure(level="warning")
    structlog.get_logger().info("quiet")
    logging.getLogger("grpclib.server").info("quiet")
    logging.getLogger("hypercorn.error").info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("grpclib.server").warning("loud %s", "too")
    assert [line["event"] for line in lines(capsys)] == ["loud", "loud too"]


def test_libraries_that_log_every_byte_stay_quiet_at_debug(capsys):
    configure(level="debug")
    logging.getLogger("hpack.hpack").debug("Decoded 1")
    logging.getLogger("httpx2").info("HTTP Request: GET")
    structlog.get_logger().debug("ours")
    assert [line["event"] for line in lines(capsys)] == ["ours"]


def test_hypercorn_s_own_handler_does_not_print_a_second_line(capsys):
    configure()
    config = Config()
    config.errorlog = "-"
    logger = config.log.error_logger  # gets its handler here, as in a worker
    assert logger is not None
    logger.info("Running on %s", "http://x")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == (
        "Running on http://x",
        "info",
        "hypercorn.error",
    )


def test_hypercorn_s_own_level_does_not_lower_ours(capsys):
    configure(level="warning")
    logger = Config().log.error_logger
    assert logger is not None
    logger.info("Running on x")
    logger.warning("slow")
    assert [line["event"] for line in lines(capsys)] == ["slow"]


def test_configuring_twice_prints_once(capsys):
    configure()
    configure()
    structlog.get_logger().info("once")
    logging.getLogger("x").info("once")
    logging.getLogger("hypercorn.error").info("once")
    assert len(lines(capsys)) == 3


def test_python_s_warnings_are_logged(capsys):
    configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    (line,) = lines(capsys)
    assert "old thing" in line["event"]


def test_unknown_variables_are_warned_of_in_one_line_once(capsys):
    for _ in range(2):
        configure(unknown_variables=("ARK_PORT", "ARK_PROXY_HOST"))
    (line,) = lines(capsys)
    assert (line["level"], line["event"]) == ("warning", "variables_unknown")
    assert line["names"] == ["ARK_PORT", "ARK_PROXY_HOST"]


class Gone(io.StringIO):
    """Standard error whose reader has gone; `failing` is the call that says so."""

    def __init__(self, failing):
        super().__init__()
        setattr(self, failing, self.fail)

    def fail(self, *_):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("failing", ["write", "flush"])
def test_a_reader_that_has_gone_costs_nobody_anything(monkeypatch, failing):
    gone = Gone(failing)
    monkeypatch.setattr(sys, "stderr", gone)
    configure()
    structlog.get_logger().info("unread")
    logging.getLogger("library").info("unread")
    assert "Traceback" not in gone.getvalue()


@pytest.mark.parametrize(("terminal", "is_json"), [(False, True), (True, False)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(capsys, monkeypatch, terminal, is_json):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure(log_format="auto")
    structlog.get_logger().info("hello_there")
    logging.getLogger("library").info("hello_too")
    written = capsys.readouterr().err
    assert written.startswith("{") is is_json
    assert "hello_there" in written
    assert "hello_too" in written
