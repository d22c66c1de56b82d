"""The pauses of a service that fails again and again."""

import socket
import time
from pathlib import Path

import pytest

from ark_trio import backoff
from ark_trio.backoff import forget_failures, hold_back, pause_after
from ark_trio.systemd import SILENT, open_notifier


def test_pauses_double_up_to_half_a_minute():
    assert [pause_after(n) for n in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Start the service at a time; what it paused."""
    clock = [1000.0]
    pauses: list[float] = []
    monkeypatch.setattr(backoff, "_now", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", pauses.append)
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}:/other"}

    def start(after_s: float) -> float:
        clock[0] += after_s
        pauses.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = tmp_path / f"notify{clock[0]}"
            manager.bind(str(path))
            with open_notifier({"NOTIFY_SOCKET": str(path)}) as notifier:
                hold_back(environ, notifier)
        clock[0] += sum(pauses)
        return sum(pauses)

    start.end_well = lambda: forget_failures(environ)  # type: ignore[attr-defined]  # a helper's helper
    return start


def test_the_first_restart_comes_at_once_and_the_next_ones_later(service):
    assert [service(1) for _ in range(5)] == [0, 0, 1, 2, 4]


def test_a_life_that_was_long_ends_the_count(service):
    assert [service(1) for _ in range(4)] == [0, 0, 1, 2]
    assert service(61) == 0
    assert service(1) == 1


def test_a_good_end_is_forgotten(service):
    assert [service(1) for _ in range(4)] == [0, 0, 1, 2]
    service.end_well()
    assert [service(1) for _ in range(3)] == [0, 0, 1]


def test_a_pause_is_told_and_asked_time_for(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"RUNTIME_DIRECTORY": str(tmp_path), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with open_notifier(environ) as notifier:
            for _ in range(3):
                hold_back(environ, notifier)
        told = manager.recv(1000).decode()
    assert told == "STATUS=starts in 1 s, after 2 failures\nEXTEND_TIMEOUT_USEC=31000000"


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"failures": "x", "started_at": 1}'])
def test_a_damaged_record_is_no_record(service, tmp_path, damage):
    service(1)
    (tmp_path / "starts.json").write_bytes(damage)
    assert service(1) == 0


def test_without_systemd_nothing_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("nobody restarts it"))
    for _ in range(5):
        hold_back({"RUNTIME_DIRECTORY": str(tmp_path)}, SILENT)
    assert list(tmp_path.iterdir()) == []
