"""Policies of choice compared: `python -m bench.choice` simulates a fleet under each and draws docs/choice.svg.

The gateway's own functions choose; only the decoders are made up. Each prefills one prompt after the other at a fixed speed,
generates at a fixed pace, and keeps the KV cache of the conversations that it saw last; one of them is slower than the rest.
People hold conversations: they read, think, and ask on. Nothing is random but by a fixed seed.
"""

import heapq
import itertools
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

from attrs import define, field, frozen

from ark_trio.fleet.choice import by_key, by_load, in_turn
from ark_trio.fleet.load import Load, Work
from bench.lines import Line, draw

PICTURE = Path(__file__).parents[1] / "docs" / "choice.svg"
DECODERS = 8
SLOW = 3.0
"""How much slower the last of them prefills."""
PREFILL_TOKENS_S = 8000.0
GAP_S = 0.02
CACHE_TOKENS = 250_000
SYSTEM_TOKENS = 300
THINK_S = 8.0
TURNS = 8
MINUTES = 6
PEOPLE = (50, 100, 150, 200, 250, 300, 350)


@define(eq=False)
class Decoder:
    """A made-up decoder; `seed` and `load` are what the gateway knows of it."""

    seed: bytes
    speed: float
    load: Load = field(factory=Load)
    free_at: float = 0.0
    cache: OrderedDict[bytes, int] = field(factory=OrderedDict)

    def prefill(self, key: bytes, prompt: int, now: float) -> tuple[float, int]:
        """Take a prompt; when its first token comes, and how many of its tokens were cached."""
        cached = max(self.cache.pop(key, 0), SYSTEM_TOKENS if self.cache else 0)
        self.free_at = max(self.free_at, now) + (prompt - cached) / self.speed
        self.cache[key] = prompt
        while sum(self.cache.values()) > CACHE_TOKENS:
            self.cache.popitem(last=False)
        return self.free_at, cached


@define(eq=False)
class Talk:
    """One person's conversation."""

    key: bytes
    tokens: int
    turns_left: int = TURNS


@frozen
class Outcome:
    """What a policy came to."""

    first_token_p50_s: float
    first_token_p99_s: float
    hits: float
    """Share of the prompts' tokens that were cached."""


Choose = Callable[[Sequence[Decoder], bytes, float, random.Random], Decoder]

POLICIES: dict[str, Choose] = {
    "affinity": lambda fleet, key, now, _: by_key(fleet, key, now),
    "power_of_two": lambda fleet, _key, now, dice: by_load(fleet, now, dice),
    "round_robin": lambda fleet, _key, _now, _: in_turn(fleet),
    "random": lambda fleet, _key, _now, dice: dice.choice(fleet),
}


@define(eq=False)
class World:
    """The fleet, the people, and what happens when."""

    choose: Choose
    now: float = 0.0
    asked: int = 0
    waits: list[float] = field(factory=list)
    tokens: int = 0
    cached_tokens: int = 0
    fleet: list[Decoder] = field(factory=lambda: [*_fleet()])
    life: random.Random = field(factory=lambda: random.Random(1))  # noqa: S311 (a simulation's)
    dice: random.Random = field(factory=lambda: random.Random(2))  # noqa: S311
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _order: "itertools.count[int]" = field(factory=itertools.count)

    def run(self, people: int) -> Outcome:
        """Let `people` talk for some minutes; the first one is not counted."""
        for _ in range(people):
            self._at(self.life.uniform(0, THINK_S), partial(self._ask, self._begin()))
        while self._events and self._events[0][0] < 60 * MINUTES:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        waits = sorted(self.waits)
        return Outcome(
            waits[len(waits) // 2], waits[len(waits) * 99 // 100], self.cached_tokens / self.tokens
        )

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _begin(self) -> Talk:
        key = blake2b(self.life.randbytes(8), digest_size=16).digest()
        return Talk(key, SYSTEM_TOKENS + self.life.randint(100, 3000))

    def _ask(self, talk: Talk) -> None:
        talk.tokens += self.life.randint(30, 600)
        work = Work(prompt=talk.tokens, answer=self.life.randint(50, 400))
        decoder = self.choose(self.fleet, talk.key, self.now, self.dice)
        self.asked += 1
        decoder.load.chosen = self.asked
        number = decoder.load.begin(work, self.now)
        first, cached = decoder.prefill(talk.key, talk.tokens, self.now)
        if self.now > 60:
            self.waits.append(first - self.now)
            self.tokens += talk.tokens
            self.cached_tokens += cached
        self._at(first, lambda: decoder.load.first_token(number, self.now))
        self._at(first + work.answer * GAP_S, partial(self._end, talk, decoder, number, work))

    def _end(self, talk: Talk, decoder: Decoder, number: int, work: Work) -> None:
        decoder.load.end(number, work)
        talk.tokens += work.answer
        talk.turns_left -= 1
        following = talk if talk.turns_left else self._begin()
        self._at(self.now + self.life.expovariate(1 / THINK_S), partial(self._ask, following))


def _fleet() -> Iterator[Decoder]:
    for number in range(DECODERS):
        slow = SLOW if number == DECODERS - 1 else 1
        yield Decoder(b"decoder %d" % number, PREFILL_TOKENS_S / slow)


def main() -> int:
    """Simulate, print the table, draw."""
    found = {
        name: [World(choose).run(people) for people in PEOPLE] for name, choose in POLICIES.items()
    }
    print(table(found))
    p99 = [
        Line(name, tuple(zip(PEOPLE, (each.first_token_p99_s for each in outcomes), strict=True)))
        for name, outcomes in found.items()
    ]
    hits = [
        Line(name, tuple(zip(PEOPLE, (100 * each.hits for each in outcomes), strict=True)))
        for name, outcomes in found.items()
    ]
    title = f"{DECODERS} decoders, one {SLOW:g} times slower; by people who talk"
    PICTURE.write_text(
        draw(
            title,
            (
                ("p99 of the first token, seconds", p99, 10.0),
                ("prompt tokens cached, %", hits, 100),
            ),
        )
    )
    return 0


def table(found: dict[str, list[Outcome]]) -> str:
    """Return the outcomes as Markdown."""
    rows = [
        "| policy | " + " | ".join(f"{people} people" for people in PEOPLE) + " |",
        "| --- |" + " --- |" * len(PEOPLE),
    ]
    for name, outcomes in found.items():
        cells = (
            f"{each.first_token_p50_s:.2f} / {each.first_token_p99_s:.2f} s, {each.hits:.0%}"
            for each in outcomes
        )
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
