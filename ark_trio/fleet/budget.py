"""How many requests may be tried again: a fleet that is failing must not be asked twice as much. Pure.

Counted over some seconds, so that the requests of one decoder that died can all go to the others at once.
"""

from collections import deque

from attrs import define, field

WINDOW_S = 10


@define
class _Second:
    number: int
    requests: int = 0
    retries: int = 0


@define(kw_only=True)
class RetryBudget:
    """A share of the requests, and a few a second for quiet times, over the last `WINDOW_S` seconds."""

    share: float = 0.2
    per_s: float = 10.0
    _seconds: deque[_Second] = field(factory=deque)

    def asked(self, now: float) -> None:
        """Count a request."""
        self._second(now).requests += 1

    def take(self, now: float) -> bool:
        """Take a retry out of what is left, if any is."""
        this = self._second(now)
        requests = sum(second.requests for second in self._seconds)
        retries = sum(second.retries for second in self._seconds)
        if retries + 1 > self.share * requests + self.per_s * WINDOW_S:
            return False
        this.retries += 1
        return True

    def _second(self, now: float) -> _Second:
        number = int(now)
        while self._seconds and self._seconds[0].number <= number - WINDOW_S:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        return self._seconds[-1]
