"""Texts that a grammar allows, drawn at random: the other end of what llama.cpp does with it."""

from collections.abc import Callable
from typing import Any, assert_never

from hypothesis import assume
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

MAX_STEPS = 400
Draw = Callable[[Any], Any]


def draw_text(data: st.DataObject, rules: Rules, root: str = "root") -> str:
    """A text that `root` matches, if there are any; long ones are not drawn."""
    assume(root in possible(rules))
    return _Sampler(data.draw, rules).sample(rules[root])


class _Sampler:
    def __init__(self, draw: Draw, rules: Rules) -> None:
        self._draw = draw
        self._rules = rules
        self._possible = possible(rules)
        self._steps = 0

    def sample(self, item: Expression) -> str:
        self._steps += 1
        assume(self._steps < MAX_STEPS)
        match item:
            case Text(text):
                return text
            case Char(allowed):
                return self._char(allowed)
            case Row(items):
                return "".join(map(self.sample, items))
            case Choice(items):
                kept = [each for each in items if self._can(each)]
                return self.sample(kept[self._draw(st.integers(0, len(kept) - 1))])
            case Repeat(inner, least, most):
                return self._repeat(inner, least, most)
            case Ref(name):
                return self.sample(self._rules[name])
            case _:
                assert_never(item)

    def _repeat(self, inner: Expression, least: int, most: int | None) -> str:
        if not self._can(inner):
            return ""
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
