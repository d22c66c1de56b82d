"""Texts that a grammar allows, drawn at random: the other end of what llama.cpp does with it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.chars import CharSet
from ark_trio.engine.llama.grammar.expression import (
    Char,
    Choice,
    Expression,
    Ref,
    Repeat,
    Row,
    Rules,
    Text,
    is_possible,
    possible,
)

WILD_STEPS = 120
"""After so many steps a text ends the shortest way: recursion has no end of its own, and nothing must be thrown away."""
Draw = Callable[[Any], Any]
Costs = Mapping[str, float]


def draw_text(data: st.DataObject, rules: Rules, root: str = "root") -> str:
    """A text that `root` matches; there must be one."""
    return _Sampler(data.draw, rules).sample(rules[root])


class _Sampler:
    def __init__(self, draw: Draw, rules: Rules) -> None:
        self._draw = draw
        self._rules = rules
        self._possible = possible(rules)
        self._costs = costs_of(rules)
        self._steps = 0

    @property
    def _hurried(self) -> bool:
        return self._steps > WILD_STEPS

    def sample(self, item: Expression) -> str:
        self._steps += 1
        match item:
            case Text(text):
                return text
            case Char(allowed):
                return self._char(allowed)
            case Row(items):
                return "".join(map(self.sample, items))
            case Choice(items):
                return self.sample(self._one_of([each for each in items if self._can(each)]))
            case Repeat(inner, least, most):
                return self._repeat(inner, least, most)
            case Ref(name):
                return self.sample(self._rules[name])
            case _:
                assert_never(item)

    def _one_of(self, items: Sequence[Expression]) -> Expression:
        if self._hurried:
            return min(items, key=lambda item: cost(item, self._costs))
        return items[self._draw(st.integers(0, len(items) - 1))]

    def _repeat(self, inner: Expression, least: int, most: int | None) -> str:
        if not self._can(inner):
            return ""
        if self._hurried:
            return "".join(self.sample(inner) for _ in range(least))
        high = least + 3 if most is None else min(most, least + 3)
        # The bounds themselves are where mistakes hide.
        if most is not None and most < 40 and self._draw(st.booleans()):
            high = most
        count = self._draw(st.integers(least, max(least, high)))
        return "".join(self.sample(inner) for _ in range(count))

    def _char(self, allowed: CharSet) -> str:
        low, high = self._draw(st.sampled_from(allowed.ranges))
        return chr(self._draw(st.integers(low, high)))

    def _can(self, item: Expression) -> bool:
        return is_possible(item, self._possible)


def costs_of(rules: Rules) -> Costs:
    """How many steps the shortest text of each rule takes; infinite where there is none."""
    costs = dict.fromkeys(rules, math.inf)
    while True:
        better = {name: cost(rule, costs) for name, rule in rules.items()}
        if better == costs:
            return costs
        costs = better


def cost(item: Expression, costs: Costs) -> float:
    match item:
        case Text():
            return 1
        case Char(allowed):
            return 1 if allowed.ranges else math.inf
        case Row(items):
            return 1 + sum(cost(each, costs) for each in items)
        case Choice(items):
            return 1 + min((cost(each, costs) for each in items), default=math.inf)
        case Repeat(inner, least):
            return 1 + least * cost(inner, costs) if least else 1
        case Ref(name):
            return 1 + costs[name]
        case _:
            assert_never(item)
