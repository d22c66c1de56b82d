"""The private engine's process: checked, started, watched until it is well and until it ends.

We stay in front of it, since we can tell systemd what goes on and why it ended; it can't. It leads a session of its own and
never outlives us: not our end, whatever that is, nor does any process of its own outlive it.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import structlog
import trio
from attrs import define, field

from ark_trio.config import Settings
from ark_trio.engine.health import GRACE_S, is_healthy, wait_for_prefiller
from ark_trio.engine.xllm.checks import Fault, check_host, place_license, raise_limits
from ark_trio.engine.xllm.launch import Host, Role, command, environment
from ark_trio.errors import Unavailable
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.settings.address import Address
from ark_trio.systemd import SILENT, Notifier, without_manager

log = structlog.get_logger()

START_S = {"prefiller": 150.0, "decoder": 210.0}
"""What it may take until it is well: 120 and 180 seconds, and half a minute more."""
LOOK_S = 1.0
"""Time between two looks before it is well."""
WATCH_S = 10.0
"""Time between two looks after that."""
HURRY_S = 1.0
"""What it has to end after SIGINT, or a second SIGTERM."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def run_xllm(settings: Settings, role: Role, notifier: Notifier) -> int:
    """Run the engine until it ends, or a signal ends it; return the exit status."""
    engine = PrivateEngine(settings=settings, role=role, notifier=notifier)
    trio.run(engine.run)
    return engine.status


@define(kw_only=True, eq=False)
class PrivateEngine:
    """The engine and what becomes of it."""

    settings: Settings
    role: Role
    notifier: Notifier = SILENT
    status: int = 0
    """What this process is to exit with."""
    _started: bool = False
    _gave_up: str = ""
    _asked_to_stop: trio.Event = field(factory=trio.Event)
    _asked_to_hurry: trio.Event = field(factory=trio.Event)

    async def run(self) -> None:
        """Check, start, watch. SIGTERM is passed on and bounded by `drain_s`, a second one or SIGINT by a second."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            # The process's nursery: the engine beside the tasks that hear signals and feed the watchdog.
            async with open_bridge() as bridge, trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery.cancel_scope)
                nursery.start_soon(self.notifier.feed_watchdog)
                await self._live(bridge)
                nursery.cancel_scope.cancel()

    async def _live(self, bridge: Bridge) -> None:
        try:
            await wait_for_prefiller(bridge, self.settings, self.notifier)
        except Unavailable as error:
            self._fail(error.message)
            return
        host, faults = await trio.to_thread.run_sync(self._look)
        for fault in faults:
            self._fail(fault)
        if not faults:
            await self._run_engine(bridge, host)

    def _look(self) -> tuple[Host, list[str]]:
        """Look at the host, and put the licence into place if all is well."""
        raise_limits()
        host, faults = check_host(self.settings, self.role)
        if not faults:
            try:
                place_license(self.settings.xllm)
            except Fault as fault:
                faults = [str(fault)]
        return host, faults

    async def _run_engine(self, bridge: Bridge, host: Host) -> None:
        with self._process(host) as process:
            self._started = True
            pidfd = os.pidfd_open(process.pid)
            try:
                # Holds the tasks that watch the engine and stop it: they end with it.
                async with trio.open_nursery() as beside:
                    beside.start_soon(self._watch, bridge, process)
                    beside.start_soon(self._stop, process)
                    await trio.lowlevel.wait_readable(pidfd)
                    beside.cancel_scope.cancel()
            finally:
                os.close(pidfd)
        self._judge(process.returncode)

    @contextmanager
    def _process(self, host: Host) -> "Iterator[subprocess.Popen[bytes]]":
        """Start it in a session of its own; what is left of that session is killed when the block ends."""
        home = self.settings.xllm.home
        line = command(self.settings, self.role)
        log.info("engine_starts", command=line, folder=str(home), gpus=host.gpus)
        process = subprocess.Popen(  # noqa: S603 (the operator's own binary)
            line,
            cwd=home,
            env=environment(self.settings, self.role, host, without_manager(os.environ)),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            # In the main thread: the signal comes when the thread ends that started the process.
            preexec_fn=_end_with_parent,  # noqa: PLW1509 (nothing else runs in this process that forks)
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # before it is reaped: its id can't be another's yet
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    async def _watch(self, bridge: Bridge, process: "subprocess.Popen[bytes]") -> None:
        """Say when it is well; give it up if it does not get well in time."""
        address = Address(host="127.0.0.1", port=self.settings.grpc_bind.port)
        limit_s = self.settings.xllm.start_s or START_S[self.role]
        self.notifier.starting("the engine starts", limit_s + GRACE_S)
        began = trio.current_time()
        while not await is_healthy(bridge, address):
            waited_s = trio.current_time() - began
            if waited_s > limit_s:
                self._gave_up = f"it was not healthy within {limit_s:g} s"
                _signal(process, signal.SIGKILL)
                return
            self.notifier.status(f"the engine starts: not healthy after {waited_s:.0f} s")
            await trio.sleep(LOOK_S)
        log.info("engine_ready", role=self.role, driver="xllm", port=address.port)
        self.notifier.ready("the engine is healthy")
        while True:
            await trio.sleep(WATCH_S)
            well = await is_healthy(bridge, address)
            self.notifier.status("the engine is healthy" if well else "the engine does not answer")

    async def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Once asked to: tell it, wait, kill it."""
        await self._asked_to_stop.wait()
        drain_s = self.settings.limits.drain_s
        log.info("engine_draining", role=self.role)
        self.notifier.stopping("the engine ends", drain_s + HURRY_S + GRACE_S)
        _signal(process, signal.SIGTERM)
        with trio.move_on_after(drain_s):
            await self._asked_to_hurry.wait()
            await trio.sleep(HURRY_S)
        log.warning("engine_killed", role=self.role)
        _signal(process, signal.SIGKILL)

    async def _heed(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            if not self._started:
                everything.cancel()
            if number == signal.SIGINT or self._asked_to_stop.is_set():
                self._asked_to_hurry.set()
            self._asked_to_stop.set()

    def _judge(self, code: int) -> None:
        """Say how it ended. However it did, it was a failure unless it was asked to."""
        if self._asked_to_stop.is_set():
            log.info("engine_stopped", role=self.role)
        elif self._gave_up:
            self._fail(f"the engine was given up: {self._gave_up}")
        elif code < 0:
            self._fail(f"the engine was killed by {signal.Signals(-code).name}")
        else:
            self._fail(f"the engine ended by itself with code {code}")

    def _fail(self, reason: str) -> None:
        log.error("engine_failed", role=self.role, reason=reason)
        self.notifier.status(reason)
        self.status = 1


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
