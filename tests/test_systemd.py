"""What systemd is told, and what it hands over."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ark_trio.config import Bind, Settings
from ark_trio.doors import open_listener
from ark_trio.errors import ConfigError
from ark_trio.systemd import FIRST_FD, open_notifier, take_listener, without_manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.getsockname()), **more}


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


def test_ready_carries_a_status_of_one_line(manager):
    with open_notifier(environ(manager)) as notifier:
        notifier.ready("two\nlines=x")
    assert told(manager) == {"READY": "1", "STATUS": "two lines=x"}


def test_a_reload_is_begun_with_the_clock_that_systemd_compares(manager):
    with open_notifier(environ(manager)) as notifier:
        before = time.monotonic_ns() // 1000
        notifier.reloading()
    message = told(manager)
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_a_stop_asks_for_the_time_that_it_may_take(manager):
    with open_notifier(environ(manager)) as notifier:
        notifier.stopping("draining", 71.5)
    assert told(manager) == {
        "STOPPING": "1",
        "STATUS": "draining",
        "EXTEND_TIMEOUT_USEC": "71500000",
    }


async def test_the_watchdog_is_fed_three_times_within_its_limit(manager, autojump_clock):
    with open_notifier(environ(manager, WATCHDOG_USEC="30000000")) as notifier:
        with trio.move_on_after(29):
            await notifier.feed_watchdog()
    assert [told(manager) for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
    with pytest.raises(BlockingIOError):
        manager.recv(1)


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
async def test_a_watchdog_that_is_not_ours_is_not_fed(manager, variables):
    with open_notifier(environ(manager, **variables)) as notifier:
        await notifier.feed_watchdog()
    with pytest.raises(BlockingIOError):
        manager.recv(1)


async def test_a_status_is_told_when_it_changes_and_only_then(manager, autojump_clock):
    texts = iter(["a", "a", "b", "b", "b"])
    with open_notifier(environ(manager)) as notifier:
        with trio.move_on_after(4.5):
            await notifier.keep_status(lambda: next(texts))
    assert [told(manager) for _ in range(2)] == [{"STATUS": "a"}, {"STATUS": "b"}]
    with pytest.raises(BlockingIOError):
        manager.recv(1)


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": "vsock:2:1"}])
async def test_where_nobody_listens_nothing_is_done(variables):
    with open_notifier(variables) as notifier:
        notifier.ready("x")
        await notifier.feed_watchdog()
        await notifier.keep_status(lambda: pytest.fail("nobody reads it"))


def test_a_manager_that_has_gone_is_no_reason_to_fail(manager):
    with open_notifier(environ(manager)) as notifier:
        manager.close()
        notifier.alive()


def test_an_abstract_socket_is_told_too():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"ark-test-{os.getpid()}"
        sock.bind("\0" + name)
        with open_notifier({"NOTIFY_SOCKET": "@" + name}) as notifier:
            notifier.alive()
        assert sock.recv(100) == b"WATCHDOG=1"


@pytest.fixture
def handed_over() -> Iterator[int]:
    """A listening socket as descriptor 3; its port. What had that number gets it back."""
    saved = os.dup(FIRST_FD) if _is_open(FIRST_FD) else None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.dup2(listener.fileno(), FIRST_FD, inheritable=True)
        port = int(listener.getsockname()[1])
    yield port
    if saved is not None:
        os.dup2(saved, FIRST_FD)
        os.close(saved)
    elif _is_open(FIRST_FD):
        os.close(FIRST_FD)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def activation(count: str = "1", pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_FDS": count, "LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDNAMES": "http"}


def test_a_socket_handed_over_is_taken_once_and_by_no_child(handed_over):
    variables = {"PATH": "/bin", **activation()}
    listener = take_listener(variables)
    assert listener is not None
    with listener:
        assert listener.getsockname()[1] == handed_over
        assert not os.get_inheritable(listener.fileno())
        assert listener.getblocking() is False
    assert variables == {"PATH": "/bin"}


def test_a_socket_meant_for_another_process_is_left_alone(handed_over):
    assert take_listener(activation(pid=1)) is None
    assert _is_open(FIRST_FD)


def test_two_sockets_are_refused(handed_over):
    with pytest.raises(ConfigError, match="2 sockets were handed over"):
        take_listener(activation("2"))


def test_a_socket_that_does_not_listen_is_refused(handed_over):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        os.dup2(other.fileno(), FIRST_FD)
    with pytest.raises(ConfigError, match="Accept=no"):
        take_listener(activation())


def test_the_gateway_listens_on_what_it_is_handed(handed_over, monkeypatch):
    for name, value in activation().items():
        monkeypatch.setenv(name, value)
    with open_listener(Settings(bind=Bind(host="127.0.0.1", port=1))) as listener:
        assert listener.getsockname()[1] == handed_over


def test_a_handed_socket_open_to_other_hosts_needs_keys_too(handed_over, monkeypatch):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        os.dup2(listener.fileno(), FIRST_FD)
    for name, value in activation().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="open to other hosts"):
        with open_listener(Settings()):
            pytest.fail("it must not serve")


def test_a_child_hears_nothing_of_the_manager():
    variables = {"PATH": "/bin", "NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    assert without_manager({**variables, **activation()}) == {"PATH": "/bin"}
