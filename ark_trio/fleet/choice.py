"""Which of several decoders takes a request. Pure but for the dice.

A key binds a request to a decoder: the beginning of its conversation, whose KV cache that decoder likely still has, or its
session. Each decoder is ranked for the key by a hash of both (rendezvous hashing): that one decoder comes or goes moves only
the keys that it takes or had. The first in rank takes the request unless it is busier than the others by more than
`BOUND` (Mirrokni et al., "Consistent Hashing with Bounded Loads") or so slow that the cache is not worth the wait; then the
next one in rank is asked. What that brings: `bench/choice.py`.
"""

import math
import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

from ark_trio.fleet.load import Load

BOUND = 1.25
"""A decoder that a key leads to takes at most so many times its even share of the requests that run."""
TOO_SLOW = 4.0
"""It is passed over where a request would cost so many times what it costs on the middle one of those that have room."""
_HASH_BYTES = 8


class Candidate(Protocol):
    """What is known of a decoder here."""

    @property
    def seed(self) -> bytes:
        """What tells it from the others, at most 64 bytes."""

    @property
    def load(self) -> Load:
        """What it does for us."""


C = TypeVar("C", bound=Candidate)


def by_key(candidates: Sequence[C], key: bytes, now: float) -> C:
    """Return the first in the key's rank that has room and is not too slow; there always is one."""
    if len(candidates) == 1:
        return candidates[0]
    limit = bound(sum(candidate.load.in_flight for candidate in candidates), len(candidates))
    costs = [(each, each.load.cost(now)) for each in candidates if each.load.in_flight < limit]
    middle = sorted(cost for _, cost in costs)[len(costs) // 2]
    return max(
        (each for each, cost in costs if cost <= TOO_SLOW * middle),
        key=lambda each: rank(each.seed, key),
    )


def bound(total: int, decoders: int) -> int:
    """Return the most requests that a decoder may have after the next one, of `total` that run on all."""
    return math.ceil(BOUND * (total + 1) / decoders)


def rank(seed: bytes, key: bytes) -> bytes:
    """Return what a decoder draws for a key; the highest wins."""
    return blake2b(key, key=seed, digest_size=_HASH_BYTES).digest()


def by_load(candidates: Sequence[C], now: float, dice: random.Random) -> C:
    """Return the better of two taken at random, which all gateways can do at once without running into the same one."""
    if len(candidates) == 1:
        return candidates[0]
    one, other = dice.sample(candidates, 2)
    return min((one, other), key=lambda candidate: candidate.load.cost(now))


def in_turn(candidates: Sequence[C]) -> C:
    """Return the one whose last turn is the longest ago."""
    return min(candidates, key=lambda candidate: candidate.load.chosen)
