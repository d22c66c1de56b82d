"""Computing a prompt's KV cache in a slot, a piece at a time.

llama.cpp does not look for a vanished client while it works through a prompt (3,500 tokens: 38 s on one busy core). So a
prompt is given to it in pieces of one batch: a cancel takes effect after the piece that runs, and prompts in several
slots take turns. A piece costs one HTTP exchange, no evaluation is repeated, and batches are cut where llama.cpp
would cut them itself. Nor does it look for a vanished client before it begins a piece (four cancelled prompts: 5.5 s),
so it never has more than one batch of them; the others wait their turn here.
"""

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


class Prefill:
    """Prefills slots, remembering what each holds, so that a piece never throws a longer cached prefix away."""

    def __init__(self, client: LlamaClient, *, slots: int, piece: int) -> None:
        self._client = client
        self._piece = piece
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._turns = Turns(piece)

    async def run(self, slot: int, tokens: list[int]) -> Evaluation:
        """Have `slot` hold the cache of `tokens`."""
        held = _common(self._held[slot], tokens)
        self._held[slot] = []  # unknown until done
        total = Evaluation()
        end = held - held % self._piece
        while end < len(tokens):
            begin, end = end, min(end + self._piece, len(tokens))
            await self._turns.take(slot, end - begin)
            timings = await self._client.evaluate(slot, tokens[:end])
            # Not if it failed or was cancelled: llama.cpp may still compute it. Then `at_rest` gives the turn back.
            self._turns.give_back(slot)
            total = evolve(
                total,
                evaluated=total.evaluated + timings["prompt_n"],
                ms=total.ms + timings["prompt_ms"],
            )
        self._held[slot] = tokens
        return evolve(total, cached=max(0, len(tokens) - total.evaluated))

    def at_rest(self, slot: int) -> None:
        """Nothing is computed for `slot` any more."""
        self._turns.give_back(slot)

    def note(self, slot: int, tokens: list[int]) -> None:
        """Something else has been put into `slot`; [] if it isn't known what."""
        self._held[slot] = tokens


def _common(held: list[int], tokens: list[int]) -> int:
    """Return the length of the common prefix."""
    for position, (one, other) in enumerate(zip(held, tokens, strict=False)):
        if one != other:
            return position
    return min(len(held), len(tokens))
