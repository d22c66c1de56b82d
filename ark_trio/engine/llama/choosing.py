"""Which prefiller to ask: of two at random, and the one that knows most of the prompt, the one with the least to do.

What a prefiller has to do is judged by what this decoder has asked of it, in tokens: of the two at random the less loaded
one is nearly as good as the best of all, and no decoders flock to the same one (power of two choices).
"""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio
from attrs import define, field

from ark_trio.engine.llama.prefill import common_prefix
from ark_trio.engine.llama.wish import Wish
from ark_trio.rpc.client import ArkChannel

SHUN_S = 2.0
"""Time for which one that has failed is asked only after the others."""
_CANDIDATES = 2


@define(kw_only=True, eq=False)
class Prefiller:
    """A configured prefiller, as this decoder sees it."""

    channel: ArkChannel
    known: deque[Wish]
    """Prompts that it computed last for this decoder; as many as it may still hold."""
    pending: int = 0
    """Tokens that it is computing for this decoder."""
    _failed_at: float = field(default=float("-inf"))

    def lacking(self, wish: Wish) -> int:
        """Return how many of the prompt's tokens it would have to compute."""
        common = (
            common_prefix(known.tokens, wish.tokens)
            for known in self.known
            if known.salt == wish.salt
        )
        return len(wish.tokens) - max(common, default=0)

    @contextmanager
    def asked(self, wish: Wish) -> Iterator[None]:
        """Count what it has to do while the block runs; a block that ends well leaves it with the prompt known."""
        work = self.lacking(wish)
        self.pending += work
        try:
            yield
            self.known.append(wish)
        finally:
            self.pending -= work

    def note_failure(self) -> None:
        """Remember that it failed; what it held may be gone."""
        self._failed_at = trio.current_time()
        self.known.clear()

    @property
    def shunned(self) -> bool:
        """It has failed just now."""
        return trio.current_time() < self._failed_at + SHUN_S


def in_order(prefillers: Sequence[Prefiller], wish: Wish) -> list[Prefiller]:
    """Return the prefillers in the order in which to ask them."""
    shuffled = random.sample(prefillers, len(prefillers))
    well = [prefiller for prefiller in shuffled if not prefiller.shunned]
    first = well[:_CANDIDATES]
    best = min(well, key=lambda prefiller: prefiller.lacking(wish), default=None)
    if best is not None and best not in first:
        first.append(best)
    first.sort(key=lambda prefiller: prefiller.pending + prefiller.lacking(wish))
    others = [prefiller for prefiller in well if prefiller not in first]
    return [*first, *others, *(prefiller for prefiller in shuffled if prefiller.shunned)]
