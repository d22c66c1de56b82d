"""From samples to figures: medians of rounds, ratios to the strong baseline, and what has been reached."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from bench.record import Results
from bench.rounds import Sample

PINS = ("pinned", "unpinned")
Place = tuple[str, str, str]
"""Regime, cell, pin."""


@frozen(kw_only=True)
class Goal:
    """A figure that has a goal; smaller is better."""

    title: str
    regime: str
    cells: tuple[str, ...]
    key: str
    levels: tuple[float, float, float]
    """Must, goal, stretch: ratios to the strong baseline, or ms that are added to reading the decoder directly."""
    added: bool = False


GOALS = (
    Goal(
        title="(b) paced, stepped: CPU a token",
        regime="stepped",
        cells=("paced100", "paced300"),
        key="cpu_us_token",
        levels=(1.0, 0.7, 0.5),
    ),
    Goal(
        title="(b) paced, spread: CPU a token",
        regime="spread",
        cells=("paced100", "paced300"),
        key="cpu_us_token",
        levels=(1.4, 1.0, 0.75),
    ),
    Goal(
        title="(a) backlog: CPU a token",
        regime="stepped",
        cells=("backlog",),
        key="cpu_us_token",
        levels=(0.5, 0.33, 0.2),
    ),
    Goal(
        title="(c) memory an open stream",
        regime="stepped",
        cells=("held",),
        key="kb_stream",
        levels=(1.0, 0.75, 0.45),
    ),
    Goal(
        title="(e) first token alone, p50",
        regime="stepped",
        cells=("first",),
        key="first_ms.p50",
        levels=(3.0, 2.0, 1.25),
    ),
    Goal(
        title="(d) CPU a request of 16 tokens",
        regime="stepped",
        cells=("short_stream", "short_whole"),
        key="cpu_ms_request",
        levels=(1.5, 1.0, 0.6),
    ),
    Goal(
        title="added gap between tokens at 5,000 tokens/s, p99, the machine's own slow moments left out",
        regime="stepped",
        cells=("paced100",),
        key="calm_gap_ms.p99",
        levels=(3.0, 1.5, 0.5),
        added=True,
    ),
)


@frozen(kw_only=True)
class Verdict:
    """How a goal stands: its worst cell, and the worse way of pinning there."""

    goal: Goal
    cell: str
    pin: str
    ours: float
    strong: float
    standing: float
    """What is held against the levels."""
    against_predecessor: float | None

    @property
    def reached(self) -> str:
        """The last level that is met."""
        names = ("must", "goal", "stretch")
        met = [
            n for n, level in zip(names, self.goal.levels, strict=True) if self.standing <= level
        ]
        return met[-1] if met else "not met"


class Figures:
    """All samples of a run, to be asked."""

    def __init__(self, results: Results) -> None:
        self.about = results.about
        self.samples = results.samples
        self._found: dict[tuple[Place, str], dict[int, Sample]] = {}
        for sample in results.samples:
            place = (sample.regime, sample.cell, sample.pin)
            self._found.setdefault((place, sample.stack), {})[sample.round] = sample

    @property
    def stacks(self) -> list[str]:
        """The stacks that were measured, in the order of the first round."""
        return list(dict.fromkeys(sample.stack for sample in self.samples))

    def rounds(self, place: Place, stack: str, key: str) -> dict[int, float]:
        """Return a figure of each round; none where answers were lost."""
        found = self._found.get((place, stack), {})
        values = {number: number_of(sample, key) for number, sample in found.items()}
        return {number: value for number, value in values.items() if value is not None}

    def median(self, place: Place, stack: str, key: str) -> float | None:
        """Return the median of the rounds."""
        values = self.rounds(place, stack, key).values()
        return statistics.median(values) if values else None

    def paired(
        self, place: Place, stacks: tuple[str, str], key: str, how: Callable[[float, float], float]
    ) -> float | None:
        """Return the median of what `how` makes of both stacks' figures of the same round."""
        one, other = (self.rounds(place, stack, key) for stack in stacks)
        pairs = [how(one[number], other[number]) for number in one.keys() & other.keys()]
        return statistics.median(pairs) if pairs else None

    def ratio(self, place: Place, stack: str, to: str, key: str) -> float | None:
        """Return how many times the other stack's figure it is."""
        return self.paired(place, (stack, to), key, lambda one, other: one / other)

    def added(self, place: Place, stack: str, key: str) -> float | None:
        """Return what is added to the decoder's own figure, read directly."""
        return self.paired(place, (stack, "direct"), key, lambda one, other: one - other)

    def worse(self, regime: str, cell: str, stack: str, key: str) -> float | None:
        """Return the larger of the medians, pinned and not."""
        return worst(self.median((regime, cell, pin), stack, key) for pin in PINS)

    def verdicts(self) -> list[Verdict]:
        """Return how every goal stands that was measured."""
        return [v for goal in GOALS if (v := self._verdict(goal)) is not None]

    def _verdict(self, goal: Goal) -> Verdict | None:
        places = [(goal.regime, cell, pin) for cell in goal.cells for pin in PINS]
        standings = [(self._standing(place, goal), place) for place in places]
        known = [(standing, place) for standing, place in standings if standing is not None]
        if not known:
            return None
        standing, place = max(known)
        return Verdict(
            goal=goal,
            cell=place[1],
            pin=place[2],
            ours=self.median(place, "ours", goal.key) or 0.0,
            strong=self.median(place, "strong", goal.key) or 0.0,
            standing=standing,
            against_predecessor=worst(
                self.ratio(each, "ours", "predecessor", goal.key) for each in places
            ),
        )

    def _standing(self, place: Place, goal: Goal) -> float | None:
        if goal.added:
            return self.added(place, "ours", goal.key)
        return self.ratio(place, "ours", "strong", goal.key)


def number_of(sample: Sample, key: str) -> float | None:
    """Return a figure by its name, such as `first_ms.p50`."""
    name, _, part = key.partition(".")
    value = sample.figures.get(name)
    if part and isinstance(value, dict):
        value = value.get(part)
    return float(value) if isinstance(value, int | float) else None


def worst(values: Iterable[float | None]) -> float | None:
    """Return the largest that is known."""
    known: Sequence[float] = [value for value in values if value is not None]
    return max(known, default=None)
