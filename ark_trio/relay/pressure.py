"""How short the gateway is of processor time, and how long it lets engines' tokens gather for that.

Where each stream's token comes by itself, a read of an engine's connection brings one or two, and the wake that it takes costs more
than what is done with them. Under pressure reads are set apart, up to `most_s`: what has come meanwhile comes in one.
With time to spare nothing waits for anything. What it brings: `bench/gather.py`.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import define

LOOK_S: Final = 0.1
_FROM: Final = 0.7
"""Of a core: from here on something is gathered."""
_FULL: Final = 0.95
"""From here on for as long as may be."""
_LEAST_S: Final = 0.0005
"""What is shorter is not worth a timer."""
_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
_NS: Final = 1e-9


@define(eq=False)
class Pressure:
    """Measured all the time, by a task of its own."""

    most_s: float = 0.0
    """The longest that tokens may gather; 0: they never do."""
    _window_s: float = 0.0

    def window_s(self) -> float:
        """Return how long to let pass between two reads now."""
        return self._window_s

    def see(self, share: float) -> None:
        """Take what share of a core was wanted since the last look. The window follows it halfway, so that it does not swing."""
        wanted_s = self.most_s * min(1.0, max(0.0, (share - _FROM) / (_FULL - _FROM)))
        window_s = min(self.most_s, (self._window_s + wanted_s) / 2)
        self._window_s = window_s if window_s >= _LEAST_S else 0.0

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            began, wanted_s = time.monotonic(), _wanted_s()
            await trio.sleep(LOOK_S)
            passed_s = time.monotonic() - began
            if passed_s >= LOOK_S / 2:  # else it is not this clock that Trio sleeps by
                self.see((_wanted_s() - wanted_s) / passed_s)


def _wanted_s() -> float:
    """Return the time for which this thread has run, or would have if it had been let."""
    waited_s = 0.0
    with suppress(OSError, IndexError, ValueError):
        waited_s = int(_SCHEDSTAT.read_text().split()[1]) * _NS
    return time.thread_time() + waited_s
