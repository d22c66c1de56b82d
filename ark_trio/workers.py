"""Several processes of the gateway behind one listening socket, and the parent that watches over them.

The parent forks before anything else runs and serves nothing itself. Each worker has a socket to it. Workers say there, as
services say it to systemd, that they are ready and alive; a dead one is replaced while the others go on, a hung one is
killed first. The parent passes signals on there, and workers heed no others: a terminal or a service manager that signals
the whole group would else be taken for a second SIGTERM. When the parent dies its workers drain.
"""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog
from attrs import define, field, frozen

from ark_trio.systemd import Notifier

log = structlog.get_logger()

ALIVE_S = 2.0
"""How often a worker says that its event loop turns."""
HUNG_S = 30.0
"""Silence after which a worker is taken to hang."""
YOUNG_S = 10.0
"""A worker that dies younger than this is replaced with a pause that doubles."""
PAUSE_MAX_S = 30.0
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that mean something to the gateway."""
_ENDING = (signal.SIGTERM, signal.SIGINT)
_TOLD_TWICE = 2
"""The second SIGTERM hurries; of others one that waits is as good as several."""

Work = Callable[[int, Notifier, socket.socket, socket.socket], None]
"""What a worker of a number does: serve, telling the notifier, heeding the signals that arrive on the first socket as bytes,
and asking what the workers share by datagrams on the second."""


class Desk(Protocol):
    """Keeps what the workers share."""

    def answer(self, worker: int, message: bytes) -> bytes | None:
        """Do what a worker asks; return what to say to it, if anything."""

    def forget(self, worker: int) -> None:
        """Take note that a worker has died."""


@define(eq=False)
class _Worker:
    number: int
    pid: int
    voice: socket.socket
    """Where its datagrams arrive."""
    counter: socket.socket
    """Where it asks the desk."""
    born: float
    heard: float
    ready: bool = False
    status: str = ""
    owed: list[int] = field(factory=list)
    """Signals that it has not been told of."""

    def owe(self, number: int) -> None:
        """Have it told of a signal, as soon as it takes more: one that is busy with a storm of reloads must not miss SIGTERM."""
        if self.owed.count(number) < (_TOLD_TWICE if number in _ENDING else 1):
            self.owed.append(number)
        self.pay()

    def pay(self) -> None:
        """Tell it what it takes now."""
        # It may have died, which is seen to elsewhere, or take no more for the moment.
        with suppress(OSError):
            while self.owed:
                self.voice.send(bytes(self.owed[:1]))
                del self.owed[0]


@frozen(kw_only=True)
class _Vacancy:
    number: int
    not_before: float
    pause_s: float


@define(kw_only=True, eq=False)
class Supervisor:
    """The parent. Synchronous: it only waits."""

    count: int
    work: Work
    notifier: Notifier
    desk: Desk
    release: Callable[[], None] = lambda: None
    """Lets go of what the parent holds only for workers to come: the listening socket, which would else go on accepting."""
    _workers: list[_Worker] = field(factory=list)
    _vacancies: list[_Vacancy] = field(factory=list)
    _pauses: dict[int, float] = field(factory=dict)
    _stopping: bool = False
    _failed: bool = False
    _told_ready: bool = False
    _told_stopping: bool = False
    _told_status: str = ""

    def run(self) -> int:
        """Run until stopped and the last worker has ended; the exit code."""
        selector = selectors.DefaultSelector()
        woken, wake = socket.socketpair()
        for sock in (woken, wake):
            sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        selector.register(woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake.fileno())
        for number in (*HEEDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._vacancies = [
            _Vacancy(number=i + 1, not_before=0.0, pause_s=0.0) for i in range(self.count)
        ]
        while self._workers or (self._vacancies and not self._stopping):
            self._fill(selector)
            for key, _ in selector.select(ALIVE_S / 2):
                if key.fileobj is woken:
                    for byte in _drain(woken):
                        self._heed(byte)
                elif key.fileobj is key.data.counter:
                    self._attend(key.data)
                else:
                    self._hear(key.data)
            self._reap(selector)
            self._tend()
            self._tell()
        signal.set_wakeup_fd(-1)
        return 1 if self._failed else 0

    def _fill(self, selector: selectors.BaseSelector) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        for vacancy in [v for v in self._vacancies if v.not_before <= now]:
            self._vacancies.remove(vacancy)
            worker = self._fork(vacancy.number)
            self._pauses[worker.pid] = vacancy.pause_s
            self._workers.append(worker)
            for sock in (worker.voice, worker.counter):
                selector.register(sock, selectors.EVENT_READ, worker)

    def _fork(self, number: int) -> _Worker:
        ours, theirs = _pair()
        counter, asking = _pair()
        now = time.monotonic()
        pid = os.fork()
        if pid:
            theirs.close()
            asking.close()
            log.info("worker_started", worker=number, pid=pid)
            return _Worker(number, pid, ours, counter, now, now)
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number_passed_on in HEEDED:
                signal.signal(number_passed_on, signal.SIG_IGN)
            others = [sock for worker in self._workers for sock in (worker.voice, worker.counter)]
            for other in (ours, counter, *others):
                other.close()
            self.work(number, Notifier(watchdog_s=ALIVE_S * 2, socket=theirs), theirs, asking)
            code = 0
        except BaseException:  # noqa: ASYNC103 (the parent's code must not run in this process, whatever happened)
            log.exception("worker_crashed", worker=number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _heed(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number in _ENDING and not self._stopping:
            self._stopping = True
            self.release()
            self.notifier.status("stopping")
        for worker in self._workers:
            worker.owe(number)

    def _hear(self, worker: _Worker) -> None:
        with suppress(OSError):
            while message := worker.voice.recv(4096):
                worker.heard = time.monotonic()
                for line in message.decode(errors="replace").splitlines():
                    key, _, value = line.partition("=")
                    if key == "READY":
                        worker.ready = True
                    elif key == "STATUS":
                        worker.status = value
                    elif key == "EXTEND_TIMEOUT_USEC" and not self._told_stopping:
                        self._told_stopping = True
                        self.notifier.stopping("stopping", int(value) / 1e6)

    def _attend(self, worker: _Worker) -> None:
        with suppress(OSError):  # it has died, or does not take its answers and gives up on them
            while message := worker.counter.recv(4096):
                if reply := self.desk.answer(worker.number, message):
                    worker.counter.send(reply)

    def _reap(self, selector: selectors.BaseSelector) -> None:
        for worker in tuple(self._workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            code = os.waitstatus_to_exitcode(status)
            self._workers.remove(worker)
            self._attend(worker)
            self.desk.forget(worker.number)
            for sock in (worker.voice, worker.counter):
                selector.unregister(sock)
                sock.close()
            if self._stopping:
                self._failed |= code != 0
                continue
            log.error("worker_died", worker=worker.number, pid=pid, code=code)
            self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        now = time.monotonic()
        pause_s = 0.0
        if now - worker.born < YOUNG_S:
            pause_s = min(PAUSE_MAX_S, max(0.5, self._pauses.pop(worker.pid, 0.0) * 2))
        self._vacancies.append(
            _Vacancy(number=worker.number, not_before=now + pause_s, pause_s=pause_s)
        )

    def _tend(self) -> None:
        """Tell each worker what it is owed, and kill those that hang."""
        now = time.monotonic()
        for worker in self._workers:
            worker.pay()
            if now - worker.heard > HUNG_S:
                log.error("worker_hangs", worker=worker.number, pid=worker.pid)
                worker.heard = now
                os.kill(worker.pid, signal.SIGKILL)

    def _tell(self) -> None:
        """Speak to the service manager for all."""
        ready = sum(worker.ready for worker in self._workers)
        if ready == self.count and not self._told_ready:
            self._told_ready = True
            self.notifier.ready(f"{ready} workers serve")
        status = "; ".join(f"worker {worker.number}: {worker.status}" for worker in self._workers)
        if self._told_ready and status != self._told_status:
            self._told_status = status
            self.notifier.status(status)
        if self.notifier.watchdog_s is not None:
            self.notifier.alive()


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return ours, theirs


def _drain(sock: socket.socket) -> bytes:
    """Return the numbers of the signals that came."""
    with suppress(BlockingIOError):
        return sock.recv(4096)
    return b""
