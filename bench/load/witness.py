"""Whether the machine was itself meanwhile: the same small piece of work, timed again and again between two reads.

A virtual machine whose host is busy runs at a tenth of its speed for tens of milliseconds, some times a second, and no clock in it counts that
as stolen. To what is measured it looks like work, and of gaps between tokens it makes the worst hundredth whatever stands between.
Who looks at how long a piece of work takes can tell these moments from others.
"""

import bisect
import statistics
import time
from array import array
from typing import Final

_EVERY_S: Final = 0.001
_SLOW: Final = 3.0
"""So many times what the work takes at the median."""
_AROUND_S: Final = 0.005
"""How far a slow moment is taken to reach: it may have begun, and ended, between two looks."""


class Witness:
    """Looks when it is asked to, a thousand times a second at the most: 1 % of the load's own processor time."""

    def __init__(self) -> None:
        self._times = array("d")
        self._took = array("d")
        self._last = 0.0

    def look(self) -> None:
        """Do the piece of work, if it is time to."""
        now = time.monotonic()
        if now - self._last < _EVERY_S:
            return
        self._last = now
        # By its own clock: who shares the core with it is no slow machine.
        began = time.thread_time()
        sum(range(500))
        self._took.append(time.thread_time() - began)
        self._times.append(now)

    def slow_moments(self) -> list[float]:
        """Return when the machine was slow, in order, by `time.monotonic`."""
        limit = _SLOW * statistics.median(self._took) if self._took else 0.0
        looks = zip(self._times, self._took, strict=True)
        return [when for when, took in looks if took > limit]


def calm(begin: float, end: float, slow_moments: list[float]) -> bool:
    """Whether no slow moment reaches into a stretch of time."""
    at = bisect.bisect_left(slow_moments, begin - _AROUND_S)
    return at == len(slow_moments) or slow_moments[at] > end + _AROUND_S
