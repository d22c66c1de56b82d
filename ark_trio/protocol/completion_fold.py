"""A completion in one piece: steps in, one object out. Source: OpenAI's API description 2.3.0, CreateCompletionResponse."""

from typing import Any

from attrs import define, field

from ark_trio.protocol.choice import Choice, choice_of, expect_all_ended, open_choices
from ark_trio.protocol.completion_logprobs import CompletionLogprobs, joined_logprobs
from ark_trio.protocol.finish_reason import text_finish
from ark_trio.protocol.step import Step, Usage
from ark_trio.protocol.usage_body import usage_body


@define
class _Said:
    """One choice so far."""

    spelling: CompletionLogprobs
    text: list[str] = field(factory=list)
    logprobs: list[dict[str, Any] | None] = field(factory=list)
    sum: float = 0.0
    tokens: int = 0

    @property
    def likelihood(self) -> float:
        """The mean log probability of its tokens; a choice of none is the least likely."""
        return self.sum / self.tokens if self.tokens else float("-inf")


class CompletionFold:
    """Collects one answer: `generated` choices of each prompt, of which the likeliest `n` are returned."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - OpenAI's name of the field
        created: int,
        model: str,
        prompts: int = 1,
        n: int = 1,
        generated: int = 1,
        alternatives: int | None = None,
    ) -> None:
        self._constant = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._n = n
        self._generated = generated
        self._choices = open_choices(id, prompts * generated)
        self._said = [_Said(CompletionLogprobs(alternatives)) for _ in self._choices]
        self._usage: Usage | None = None

    def feed(self, step: Step) -> None:
        """Take one step.

        Raises:
            BadBackend: the step breaks the life of a choice (see `Choice`).
        """
        if step.usage is not None:
            self._usage = step.usage
        for delta in step.choices:
            choice = choice_of(self._choices, delta)
            if not choice.goes_on(delta):
                continue
            said = self._said[delta.index]
            said.text.append(delta.content)
            said.logprobs.append(said.spelling.spell(delta.logprobs))
            said.sum += sum(entry["logprob"] for entry in delta.logprobs)
            said.tokens += len(delta.logprobs)
            if delta.finish_reason is not None:
                choice.end(delta.finish_reason)

    def result(self) -> dict[str, Any]:
        """Return the answer.

        Raises:
            BadBackend: some choice never ended.
        """
        expect_all_ended(self._choices)
        chosen = [
            choice
            for first in range(0, len(self._choices), self._generated)
            for choice in self._best(self._choices[first : first + self._generated])
        ]
        return {
            **self._constant,
            "choices": [self._body(index, choice) for index, choice in enumerate(chosen)],
            "usage": usage_body(self._usage),
        }

    def _best(self, choices: tuple[Choice, ...]) -> list[Choice]:
        if len(choices) == self._n:
            return list(choices)
        by_likelihood = sorted(choices, key=lambda choice: -self._said[choice.index].likelihood)
        return by_likelihood[: self._n]

    def _body(self, index: int, choice: Choice) -> dict[str, Any]:
        said = self._said[choice.index]
        return {
            "index": index,
            "text": "".join(said.text),
            "logprobs": joined_logprobs(said.logprobs),
            "finish_reason": text_finish(choice.finish_reason),
        }
