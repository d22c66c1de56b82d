"""The answers to several prompts as one: their choices numbered on, their totals added up.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse; choice index = prompt * choices + i.
"""

from collections.abc import Iterable

from attrs import evolve

from ark_trio.errors import BadBackend
from ark_trio.protocol.answer_text import AnswerDecoder
from ark_trio.protocol.ark_message import Message
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.step import ChoiceDelta, Step, Usage

Numbered = tuple[int, Message]
"""A message, and the number of the prompt that it answers."""


class SeveralAnswers:
    """Turns the messages of several calls into the steps of one answer."""

    def __init__(self, reading: Reading, *, prompts: int, choices: int) -> None:
        self._decoders = [AnswerDecoder(reading) for _ in range(prompts)]
        self._choices = choices
        self._totals: dict[int, Usage] = {}

    def feed(self, message: Numbered) -> Step:
        """Return what the message adds.

        Raises:
            BadBackend: as `AnswerDecoder.feed`, or it answers a choice that nobody asked for.
        """
        prompt, response = message
        return self._renumber(prompt, self._decoders[prompt].feed(response))

    def end(self) -> Step:
        """Return what was held back."""
        steps = [self._renumber(i, decoder.end()) for i, decoder in enumerate(self._decoders)]
        return Step(choices=tuple(delta for step in steps for delta in step.choices))

    def _renumber(self, prompt: int, step: Step) -> Step:
        choices = tuple(self._shift(prompt, delta) for delta in step.choices)
        if step.usage is None:
            return Step(choices=choices)
        self._totals[prompt] = step.usage
        return Step(choices=choices, usage=_added(self._totals.values()))

    def _shift(self, prompt: int, delta: ChoiceDelta) -> ChoiceDelta:
        if delta.index >= self._choices:
            raise BadBackend("The engine answered a choice that was not asked for.")
        return evolve(delta, index=prompt * self._choices + delta.index)


def _added(totals: Iterable[Usage]) -> Usage:
    known = list(totals)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in known),
        completion_tokens=sum(usage.completion_tokens for usage in known),
        reasoning_tokens=_added_if_told(usage.reasoning_tokens for usage in known),
        cached_tokens=_added_if_told(usage.cached_tokens for usage in known),
    )


def _added_if_told(counts: Iterable[int | None]) -> int | None:
    told = [count for count in counts if count is not None]
    return sum(told) if told else None
