"""What the parent of several workers owes them. Real workers are in tests/e2e/test_workers.py."""

import signal
import socket
from collections.abc import Iterator

import pytest

from ark_trio.workers import _pair, _Worker

STORM = 5000


@pytest.fixture
def line() -> Iterator[tuple[_Worker, socket.socket]]:
    """A worker as its parent knows it, and its end."""
    ours, theirs = _pair()
    with ours, theirs:
        yield _Worker(1, 0, ours, ours, 0.0, 0.0), theirs


def heard(theirs: socket.socket) -> list[int]:
    said: list[int] = []
    try:
        while True:
            said += theirs.recv(1)
    except BlockingIOError:
        return said


def test_a_worker_that_is_too_busy_for_a_storm_of_reloads_still_hears_of_the_end(line):
    worker, theirs = line
    for _ in range(STORM):
        worker.owe(signal.SIGHUP)
    assert worker.owed == [signal.SIGHUP]  # the line is full, and one reload is as good as many
    for _ in range(3):
        worker.owe(signal.SIGTERM)
    assert set(heard(theirs)) == {signal.SIGHUP}
    worker.pay()
    assert heard(theirs) == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM]
    assert worker.owed == []


def test_what_a_worker_takes_it_is_told_at_once_and_once(line):
    worker, theirs = line
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        worker.owe(number)
    worker.pay()
    assert heard(theirs) == [signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM]


def test_a_dead_worker_is_owed_nothing_that_could_fail(line):
    worker, theirs = line
    theirs.close()
    worker.owe(signal.SIGTERM)
    worker.pay()
