"""How much was done a second, over the last minute."""

from collections import deque
from collections.abc import Mapping

import trio
from attrs import define, field

SAMPLE_S = 5.0
WINDOW_S = 60.0

Totals = Mapping[str, float]


@define(eq=False)
class Rates:
    """Running totals as they were, every `SAMPLE_S`."""

    _samples: deque[tuple[float, Totals]] = field(
        factory=lambda: deque(maxlen=int(WINDOW_S / SAMPLE_S) + 1)
    )

    def keep(self, totals: Totals) -> None:
        """Remember the totals of now."""
        self._samples.append((trio.current_time(), totals))

    def until(self, totals: Totals) -> dict[str, float]:
        """Return each total's growth a second, over a minute or since the beginning."""
        now = trio.current_time()
        then, before = self._samples[0] if self._samples else (now, totals)
        elapsed_s = max(now - then, 1.0)
        return {name: round((totals[name] - before[name]) / elapsed_s, 3) for name in totals}
