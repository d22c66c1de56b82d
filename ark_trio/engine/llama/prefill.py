"""Computing a prompt's KV cache in a slot, a piece at a time.

llama.cpp does not look for a vanished client while it works through a prompt (3,500 tokens: 38 s on one busy core). So a
prompt is given to it in pieces of one batch: a cancel takes effect after the piece that runs, and prompts in several
slots take turns. A piece costs one HTTP exchange, no evaluation is repeated, and batches are cut where llama.cpp
would cut them itself. Nor does it look for a vanished client before it begins a piece (four cancelled prompts: 5.5 s),
so it never has more than one batch of them; the others wait their turn here.

A prefix that the slot holds already is not computed again. But llama.cpp's sums depend, in their last bits, on how a prompt
was cut into batches, so what follows a reused prefix may differ from what a fresh computation gives. Where a request is
to repeat exactly, only pieces are reused that were computed as whole pieces at the same places.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import evolve, frozen

from ark_trio.engine.llama.client import LlamaClient
from ark_trio.engine.llama.turns import Turns


@frozen(kw_only=True)
class Evaluation:
    """What a prefill took, by the engine's own timings."""

    evaluated: int = 0
    """Tokens computed."""
    cached: int = 0
    """Tokens that the slot held already."""
    ms: float = 0.0


class Prompt(Protocol):
    """What a slot is to hold."""

    @property
    def tokens(self) -> Sequence[int]:
        """The prompt."""

    @property
    def salt(self) -> str:
        """Prompts of another salt share nothing."""


@frozen(kw_only=True)
class Held:
    """What a slot holds, as far as it is known."""

    tokens: Sequence[int] = ()
    salt: str = ""
    whole: int = 0
    """Tokens at the beginning that were computed in whole pieces."""

    def common(self, tokens: Sequence[int], salt: str) -> int:
        """Return how many tokens of a prompt it has."""
        return common_prefix(self.tokens, tokens) if salt == self.salt else 0


class Prefill:
    """Prefills slots, remembering what each holds, so that a piece never throws a longer cached prefix away."""

    def __init__(self, client: LlamaClient, *, slots: int, piece: int) -> None:
        self._client = client
        self._piece = piece
        self._held = [Held() for _ in range(slots)]
        self._turns = Turns(piece)

    async def run(
        self, slot: int, tokens: list[int], *, exact: bool = False, salt: str = ""
    ) -> Evaluation:
        """Have `slot` hold the cache of `tokens`; `exact`: to the bit as a fresh computation would give it."""
        held = self._held[slot]
        self.forget(slot)  # unknown until done
        at, whole = self._start(held, tokens, exact=exact, salt=salt)
        reuse = await self._cut(slot, tokens, at) if exact else salt == held.salt
        total = Evaluation()
        while at < len(tokens):
            end = min(at + self._piece, len(tokens))
            timings = await self._evaluate(slot, tokens[:end], end - at, reuse=reuse)
            if whole == at == timings["cache_n"] and end - at == self._piece:
                whole = end
            at, reuse = end, True
            total = evolve(
                total,
                evaluated=total.evaluated + timings["prompt_n"],
                ms=total.ms + timings["prompt_ms"],
            )
        self._held[slot] = Held(tokens=tokens, salt=salt, whole=whole)
        return evolve(total, cached=max(0, len(tokens) - total.evaluated))

    def at_rest(self, slot: int) -> None:
        """Nothing is computed for `slot` any more."""
        self._turns.give_back(slot)

    def note(self, slot: int, tokens: list[int], *, salt: str) -> None:
        """A state of `tokens` has been put into `slot`."""
        self._held[slot] = Held(tokens=tokens, salt=salt)

    def forget(self, slot: int) -> None:
        """It isn't known what `slot` holds."""
        # No request's salt is this one: what is not known is not reused.
        self._held[slot] = Held(salt="\0unknown")

    def fits(self, prompt: Prompt) -> Callable[[int], int]:
        """Return what tells how well a slot fits a prompt: tokens that it need not compute.

        A slot that would lose more than it spares is left to the conversation that it serves.
        """

        def spared(slot: int) -> int:
            held = self._held[slot]
            common = held.common(prompt.tokens, prompt.salt)
            return common if 2 * common >= len(held.tokens) else 0

        return spared

    async def _evaluate(
        self, slot: int, tokens: list[int], new: int, *, reuse: bool
    ) -> dict[str, Any]:
        await self._turns.take(slot, new)
        timings = await self._client.evaluate(slot, tokens, reuse=reuse)
        # Not if it failed or was cancelled: llama.cpp may still compute it. Then `at_rest` gives the turn back.
        self._turns.give_back(slot)
        return timings

    def _start(self, held: Held, tokens: list[int], *, exact: bool, salt: str) -> tuple[int, int]:
        """Return where evaluation starts, and up to where the slot holds whole pieces of these tokens."""
        common = held.common(tokens, salt)
        whole = min(common, held.whole) // self._piece * self._piece
        if exact:
            return min(whole, self._last_piece(tokens)), whole
        if common == len(tokens) == len(held.tokens):
            return common, whole
        # A prompt that is the beginning of another must be asked for, or the slot keeps the other's rest.
        return min(common // self._piece * self._piece, self._last_piece(tokens)), whole

    def _last_piece(self, tokens: list[int]) -> int:
        return (len(tokens) - 1) // self._piece * self._piece

    async def _cut(self, slot: int, tokens: list[int], at: int) -> bool:
        """Have the slot hold `tokens` up to `at` and nothing after that goes on like them."""
        if at:
            other = 0 if tokens[at] else 1
            await self._evaluate(slot, [*tokens[:at], other], 1, reuse=True)
        return at > 0


def common_prefix(held: Sequence[int], tokens: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    for position, (one, other) in enumerate(zip(held, tokens, strict=False)):
        if one != other:
            return position
    return min(len(held), len(tokens))
