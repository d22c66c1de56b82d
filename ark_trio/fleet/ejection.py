"""Decoders that look well but fail requests are left out for a while, each time longer. Pure.

Only an engine's own faults count, as they stand when a stream has ended. A share of a model's decoders is never left out: if
most of them fail, the fault is likely elsewhere, and to serve some requests is better than to serve none.
"""

import math
from collections import deque
from collections.abc import Collection
from typing import TypeVar

from attrs import define, field, frozen

from ark_trio.errors import (
    ArkError,
    BadBackend,
    DeadlineExceeded,
    InternalError,
    ShuttingDown,
    Unavailable,
)

D = TypeVar("D")

SEEN = 20
"""Answers that are remembered of a decoder."""
BAD_SHARE = 0.5
"""It is left out too when so many of them were faults, however they were mixed."""
_FAULTS = (Unavailable, BadBackend, DeadlineExceeded, InternalError)


@frozen(kw_only=True)
class EjectionRules:
    """When, and for how long."""

    faults: int = 5
    """Faults in a row; 0: never."""
    first_s: float = 5.0
    longest_s: float = 300.0


@define(kw_only=True)
class Ejection:
    """What one decoder's answers have come to."""

    rules: EjectionRules = field(factory=EjectionRules)
    count: int = 0
    """Times that it was left out."""
    until: float = -math.inf
    """Left out until then."""
    _strikes: int = 0
    """Ejections that the next one's length grows by."""
    _in_a_row: int = 0
    _seen: deque[bool] = field(factory=lambda: deque(maxlen=SEEN))

    def out(self, now: float) -> bool:
        """It is left out now."""
        return now < self.until

    def answered(self, now: float) -> None:
        """A stream ended well. A decoder that goes on so for as long as it was left out is forgiven a strike."""
        self._seen.append(False)
        self._in_a_row = 0
        if self._strikes and now - self.until > self._length(self._strikes):
            self._strikes -= 1
            self.until = now

    def failed(self, now: float) -> bool:
        """A stream ended by the decoder's fault. Returns whether that leaves it out from now on."""
        self._seen.append(True)
        self._in_a_row += 1
        if not self.rules.faults or self.out(now):
            return False
        if not (self._in_a_row >= self._allowed or self._mostly_bad):
            return False
        self._strikes += 1
        self.count += 1
        self.until = now + self._length(self._strikes)
        self._seen.clear()
        return True

    @property
    def _allowed(self) -> int:
        """Faults in a row. Who comes back is on trial: until its first good answer, one is enough."""
        return 1 if self._strikes and False not in self._seen else self.rules.faults

    @property
    def _mostly_bad(self) -> bool:
        return len(self._seen) == SEEN and sum(self._seen) >= BAD_SHARE * SEEN

    def _length(self, strikes: int) -> float:
        return min(self.rules.longest_s, self.rules.first_s * 2.0 ** min(strikes - 1, 30))


def not_ejected(
    decoders: Collection[D], out: Collection[D], *, panic_share: float
) -> Collection[D]:
    """Return `decoders` without those that are `out`, but all of them if fewer than `panic_share` were left."""
    left = [decoder for decoder in decoders if decoder not in out]
    return left if left and len(left) >= panic_share * len(decoders) else decoders


def is_fault(error: ArkError) -> bool:
    """Whether an answer that ended so was the decoder's fault, not the client's nor ours."""
    if isinstance(error, ShuttingDown):
        return False
    if isinstance(
        error, DeadlineExceeded
    ):  # how long an answer may be in all is the operator's choice
        return error.code != "total_timeout"
    return isinstance(error, _FAULTS)
