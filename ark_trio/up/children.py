"""Child processes, each in a session of its own, that neither outlive this process nor leave anything running.

*Starting.* A child leads its own session, so a Ctrl-C in the terminal reaches only this process, which then decides.
*Stopping.* A child is told by SIGINT, on which every service of ours ends within two seconds. Then whatever is left of
its session is killed, while the leader is still unreaped: until then its process id can't name anybody else.
*Parent gone.* A child watches its parent (`end_with_parent`): nothing else helps after kill -9. PR_SET_PDEATHSIG would
not: it knows only one signal, and fires when the *thread* that started the child ends.
"""

import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import trio
from attrs import Factory, frozen

_TAIL_LINES = 20
_LINE_BYTES = 8192
_READ_BYTES = 65536
_LAST_WORDS_S = 0.3
_ORPHAN_GRACE_S = 2.0
_REAP_LIMIT_S = 5.0


@frozen(kw_only=True, eq=False)
class Child:
    """A started process. Whoever started it calls `end_session`."""

    name: str
    process: "subprocess.Popen[bytes]"
    pidfd: int
    tail: deque[str] = Factory(lambda: deque(maxlen=_TAIL_LINES))
    """Its last lines of output."""
    begun: bytearray = Factory(bytearray)
    """A line that has no end yet."""
    silent: trio.Event = Factory(trio.Event)
    """Set when its output has ended."""

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def ended(self) -> None:
        """Wait until it has ended; it stays unreaped."""
        await trio.lowlevel.wait_readable(self.pidfd)

    def exit_status(self) -> int:
        """How it ended, as `Popen.returncode` has it, without reaping it. It has ended."""
        found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            raise RuntimeError(f"{self.name} runs")
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    async def pump(self, write: Callable[[str], None]) -> None:
        """Hand on what it writes, line by line, until nobody holds its output open."""
        assert self.process.stdout is not None  # noqa: S101 (start_child made it a pipe)
        async with trio.lowlevel.FdStream(os.dup(self.process.stdout.fileno())) as output:
            while data := await output.receive_some(_READ_BYTES):
                self.begun.extend(data)
                *lines, rest = self.begun.split(b"\n")
                if len(rest) > _LINE_BYTES:
                    lines, rest = [*lines, rest], bytearray()
                self.begun[:] = rest
                for line in lines:
                    self._took(line, write)
        if self.begun:
            self._took(bytes(self.begun), write)
            self.begun.clear()
        self.silent.set()

    async def last_words(self) -> None:
        """Wait a moment for the output of an ended child; something it started may hold the pipe open for long."""
        with trio.move_on_after(_LAST_WORDS_S):
            await self.silent.wait()
        if self.begun:
            self.tail.append(_text(self.begun))

    def end_session(self) -> int:
        """Kill what is left of its session, reap it, and return its exit status as `Popen.returncode` has it."""
        _kill_session(self.process.pid)
        status = self.process.wait(_REAP_LIMIT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.pidfd)
        return status

    def _took(self, line: bytes | bytearray, write: Callable[[str], None]) -> None:
        text = _text(line)
        self.tail.append(text)
        write(text)


def _text(line: bytes | bytearray) -> str:
    return line[:_LINE_BYTES].decode(errors="replace").rstrip()


def start_child(name: str, command: Sequence[str]) -> Child:
    """Start a process; its standard output and error come out of `pump`, its input is empty."""
    process = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Child(name=name, process=process, pidfd=os.pidfd_open(process.pid))


@contextmanager
def children_ended(children: list[Child]) -> Iterator[None]:
    """End the sessions of all children when the block is left, however that happens."""
    try:
        yield
    finally:
        end_sessions(children)


def end_sessions(children: list[Child]) -> None:
    """End the sessions of all children and forget them."""
    while children:
        children.pop().end_session()


async def stop_in_order(children: Sequence[Child], each_s: float) -> None:
    """Ask children to end, one after the other; each has `each_s` before the next is asked."""
    for child in children:
        child.tell(signal.SIGINT)
        with trio.move_on_after(each_s):
            await child.ended()


def describe_exit(status: int) -> str:
    """What a return code means, in words."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def end_with_parent(pid: int) -> None:
    """End this process once its parent `pid` is gone: by SIGINT, and two seconds later its whole session by SIGKILL.

    Uses a thread, not a task: it must work whatever the main thread is busy with, from before its event loop starts.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0 or os.getppid() != pid:
        raise SystemExit(1)
    threading.Thread(
        target=_outlive_nobody, args=(pidfd,), name="parent-watch", daemon=True
    ).start()


def _outlive_nobody(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_ORPHAN_GRACE_S)
    if os.getsid(0) == os.getpid():
        _kill_session(os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_session(session: int) -> None:
    """SIGKILL to every process of a session, in whichever process group, its leader last."""
    for pid in sorted(_members(session), key=session.__eq__):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _members(session: int) -> Iterator[int]:
    yield session
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != session and _session_of(entry) == session:
            yield int(entry.name)


def _session_of(entry: Path) -> int:
    try:
        # After the name, which may hold anything in its parentheses: state, parent, group, session.
        return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[3])
    except (OSError, IndexError):
        return -1
