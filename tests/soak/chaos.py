"""What goes wrong meanwhile: engines are killed, started again and stopped, settings are read again, workers are killed."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import trio
from attrs import define, field

from tests.support.processes import Served, engine

EVERY_S = 3.0


@define(eq=False)
class Engines:
    """Engines on ports that stay theirs, whoever listens there."""

    ports: list[int]
    _running: dict[int, tuple[ExitStack, Served]] = field(factory=dict)

    def start(self, port: int) -> None:
        """Start the one on `port`; returns when it listens."""
        exits = ExitStack()
        served = exits.enter_context(engine("decoder", "--served-names", "echo", port=port))
        self._running[port] = (exits, served)

    def kill(self, port: int) -> None:
        """Kill it."""
        exits, served = self._running.pop(port)
        served.signal(signal.SIGKILL)
        exits.close()

    def signal(self, port: int, number: int) -> None:
        """Send it a signal."""
        self._running[port][1].signal(number)

    def close(self) -> None:
        """End those that run."""
        for port in tuple(self._running):
            self.signal(port, signal.SIGCONT)
            self.kill(port)


@contextmanager
def open_engines(ports: list[int]) -> Iterator[Engines]:
    """Run an engine on each port while the block runs."""
    engines = Engines(ports)
    try:
        for port in ports:
            engines.start(port)
        yield engines
    finally:
        engines.close()


async def wreak(
    engines: Engines, alone: Served, crowd: Served, rng: Random, done: Counter[str]
) -> None:
    """Do one of them again and again, one engine at a time; every engine runs when this has been told to stop."""
    while True:
        await trio.sleep(rng.uniform(0.5, 1.5) * EVERY_S)
        what = rng.choice(("kill", "kill", "stop", "reload", "worker"))
        port = rng.choice(engines.ports)
        with trio.CancelScope(shield=True):  # bounded: what is broken is mended
            if what == "kill":
                engines.kill(port)
                await trio.sleep(rng.uniform(0, 2))
                await trio.to_thread.run_sync(engines.start, port)
            elif what == "stop":
                engines.signal(port, signal.SIGSTOP)
                await trio.sleep(rng.uniform(0.5, 3))
                engines.signal(port, signal.SIGCONT)
            elif what == "reload":
                alone.signal(signal.SIGHUP)
                crowd.signal(signal.SIGHUP)
            else:
                os.kill(rng.choice(crowd.children()), signal.SIGKILL)
        done[what] += 1
