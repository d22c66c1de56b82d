"""How often something may happen: a rate, and a burst of some seconds' worth."""

from collections.abc import Callable

from attrs import define, field

BURST_S = 5.0


@define(eq=False)
class Budget:
    """Fills by `per_s` a second up to `BURST_S` seconds' worth."""

    per_s: float
    clock: Callable[[], float]
    _left: float = field(init=False)
    _then: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.per_s * BURST_S
        self._then = self.clock()

    def spend(self) -> bool:
        """Take one. False: it is used up."""
        now = self.clock()
        self._left = min(self.per_s * BURST_S, self._left + (now - self._then) * self.per_s) - 1
        self._then = now
        return self._left >= 0
