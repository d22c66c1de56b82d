"""How busy a decoder is with our requests, as one number to compare. Pure.

Of each request the tokens that are likely to come are known from the start, so nothing is counted a token: a prompt counts
until its first token, an answer until its end.
"""

import math
from itertools import count

from attrs import define, field, frozen

_TOKENS_A_REQUEST = 1000
"""So many tokens to come weigh as much as a request does by being there."""
_MEMORY_S = 10.0
"""A first-token time counts less and less over this time, or a decoder that was slow once would never be asked again."""
_QUICK_S = 0.05
"""Below this, first-token times are noise."""
_numbers = count()


@frozen(kw_only=True)
class Work:
    """What a request is likely to ask of a decoder, in tokens."""

    prompt: int = 0
    answer: int = 0


NO_WORK = Work()


@define(kw_only=True)
class Load:
    """Our own count of what one decoder does for us."""

    in_flight: int = 0
    tokens: int = 0
    """Likely to come, of all requests that run there."""
    chosen: int = 0
    """Order in which decoders were chosen last; 0: never."""
    _pace_s: float = 0.0
    _pace_at: float = -math.inf
    _waiting: dict[int, tuple[float, Work]] = field(factory=dict)
    """Requests without a first token: since when, and their work. The oldest comes first."""

    def begin(self, work: Work, now: float) -> int:
        """Count a request; returns its number here."""
        number = next(_numbers)
        self.in_flight += 1
        self.tokens += work.prompt + work.answer
        self._waiting[number] = (now, work)
        return number

    def first_token(self, number: int, now: float) -> None:
        """A request's first token came; what comes after it is none."""
        if (waited := self._waiting.pop(number, None)) is None:
            return
        since, work = waited
        self.tokens -= work.prompt
        # A worse time is believed at once, a better one as the worse grows old: a cached prompt says little of the next.
        self._pace_s = max(_pace(now - since, work), self._remembered(now))
        self._pace_at = now

    def end(self, number: int, work: Work) -> None:
        """The request is over, however it ended."""
        self.in_flight -= 1
        self.tokens -= work.answer
        if self._waiting.pop(number, None) is not None:
            self.tokens -= work.prompt

    def pace_s(self, now: float) -> float:
        """Seconds to a first token, by what was seen and by what waits there now, for a prompt of few tokens."""
        oldest = next(iter(self._waiting.values()), None)
        waiting = 0.0 if oldest is None else _pace(now - oldest[0], oldest[1])
        return max(_QUICK_S, self._remembered(now), waiting)

    def cost(self, now: float) -> float:
        """What another request would meet here; the less the better."""
        return self.pace_s(now) * (1 + self.in_flight + self.tokens / _TOKENS_A_REQUEST)

    def _remembered(self, now: float) -> float:
        return self._pace_s * math.exp(-max(0.0, now - self._pace_at) / _MEMORY_S)


def _pace(seconds: float, work: Work) -> float:
    """A long prompt takes its time on any decoder."""
    return seconds / (1 + work.prompt / _TOKENS_A_REQUEST)
