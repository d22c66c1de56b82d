"""The body of POST /v1/completions, and what becomes of each of its parameters.

The names are those of OpenAI's API description 2.3.0, then extras that are in wide use. Null means "not set".
"""
# ruff: noqa: RUF009 - the calls in the defaults declare attrs fields

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import NOTHING, define

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.items import each
from ark_trio.protocol.parameter import Parameter, acted_on, forwarded, parameters_of, refused
from ark_trio.protocol.rules import NULL, having, needs
from ark_trio.protocol.sampling_body import CONSTRAINED_ONCE, MAX_CHOICES, SamplingBody
from ark_trio.protocol.structure import TOKENS, Bounds, parse_tokens, structure

Prompt = str | tuple[int, ...]
"""Text, or token ids."""

_MAX_BEST_OF: Final = 20
_MAX_LOGPROBS: Final = 20
"""OpenAI's is 5; what chat allows is allowed here."""


def _prompts(value: Any) -> tuple[Prompt, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise unexpected("text, a list of texts, token ids or lists of token ids", value)
    if type(value[0]) in {int, float}:
        return (parse_tokens(value),)
    if isinstance(value[0], list):
        return each(value, _some_tokens)
    return structure(value, tuple[str, ...])


def _some_tokens(value: Any) -> tuple[int, ...]:
    tokens = parse_tokens(value)
    if not tokens:
        raise Fault("expected at least one token")
    return tokens


_PROMPTS: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {**TOKENS, "minItems": 1},
        {"type": "array", "items": {**TOKENS, "minItems": 1}, "minItems": 1},
    ]
}


@define(kw_only=True)
class CompletionBody(SamplingBody):
    """Prompts to complete; null is as good as absent."""

    RULES: ClassVar = {
        "allOf": [
            needs(
                "max_tokens",
                having(echo={"const": True}),
                unless={"anyOf": [NULL, {"type": "integer", "minimum": 1}]},
            ),
            CONSTRAINED_ONCE,
        ]
    }

    prompt: tuple[Prompt, ...] = acted_on(
        "each prompt is a call of its own; choice index = prompt * n + i",
        default=NOTHING,
        parse=_prompts,
        shape=_PROMPTS,
    )
    best_of: int | None = acted_on(
        "that many are generated, and the n whose tokens are likeliest on average are returned",
        bounds=Bounds(minimum=1, maximum=_MAX_BEST_OF),
    )
    logprobs: int | None = forwarded(
        "int64_", bounds=Bounds(minimum=0, maximum=_MAX_LOGPROBS), note="alternatives, at least 1"
    )
    max_tokens: int | None = forwarded(
        "int64_",
        key="max_new_tokens",
        bounds=Bounds(minimum=0),
        note="0 with echo: the prompt alone",
    )
    echo: bool | None = forwarded("bool_", note="the prompt before the completion")
    suffix: str | None = forwarded("string_", note="what follows the completion")

    store: Any = refused("answers can't be stored here", unless=(False,))

    def __attrs_post_init__(self) -> None:
        """Check what takes two parameters to judge."""
        self.check_constraints()
        if self.max_tokens == 0 and not self.echo:
            raise Fault("expected at least 1 unless echo is true, got 0", place="max_tokens")
        generated = max(self.n or 1, self.best_of or 1)
        if len(self.prompt) * generated > MAX_CHOICES:
            raise Fault(f"expected at most {MAX_CHOICES} choices in all", place="prompt")
        self._check_best_of()

    def _check_best_of(self) -> None:
        if self.best_of is None or self.best_of == (self.n or 1):
            return
        if self.best_of < (self.n or 1):
            raise Fault(f"expected at least n, got {self.best_of}", place="best_of")
        if self.stream:
            raise Fault("can't be streamed unless it equals n", place="best_of")


PARAMETERS: Final[Mapping[str, Parameter]] = parameters_of(CompletionBody)
