"""A request's inputs, understood: everything is passed on to llama.cpp, done here, or refused by name."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from ark_trio.engine.llama.constraint import KEYS as CONSTRAINTS
from ark_trio.engine.llama.constraint import Constraint, read_constraint
from ark_trio.engine.llama.messages import check_message
from ark_trio.engine.llama.parameters import FOR_TEMPLATE, HELD_HERE, SAMPLING, WITHOUT_EFFECT
from ark_trio.engine.llama.readers import Json
from ark_trio.engine.llama.tools import KEYS as TOOLS
from ark_trio.engine.llama.tools import Tools, read_tools
from ark_trio.errors import InvalidRequest

_RANDOM_SEED = 0xFFFFFFFF
_LLAMA_PREFIXES = (
    "Unable to generate parser for this template. Automatic parser generation failed: ",
    "Failed to initialize samplers: ",
)
"""How llama.cpp introduces reasons, which are about the request, with what it was about to do."""


@frozen(kw_only=True)
class Wanted:
    """What is asked for, apart from the prompt."""

    body: Json
    """Parameters of sampling under llama.cpp's names."""
    template: Json = field(factory=dict)
    """Parameters of the chat template."""
    tools: Tools | None = None
    constraint: Constraint | None = None
    n: int = 1
    min_tokens: int = 0
    max_prompt_tokens: int | None = None
    seed: int | None = None
    logprobs: int | None = None
    """Alternatives to tell with each token."""
    stops: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    include_stop: bool = False
    """Say the stop text too."""
    salt: str = ""
    """Prompts share a cached prefix only with those of equal salt."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens that a choice may have."""
        return self.body.get("max_tokens")

    def blame(self, error: InvalidRequest, otherwise: str | None = None) -> InvalidRequest:
        """Return llama.cpp's refusal, naming the parameter that it is about; `otherwise`: if it is about none of ours."""
        reason = error.message
        for prefix in _LLAMA_PREFIXES:
            reason = reason.removeprefix(prefix)
        param = error.param or otherwise
        if error.param is None and any(word in reason for word in ("schema", "grammar")):
            param = self.constraint.param if self.constraint else "tools" if self.tools else param
        return InvalidRequest(reason, param=param, code=error.code)

    def choice(self, index: int, *, after: int = 0) -> Json:
        """Return the sampling of one choice, `after` so many of its tokens.

        With a seed, each choice has its own that follows from it.
        """
        if self.seed is None:
            return self.body
        return {**self.body, "seed": _seed(self.seed + index + (after << 16))}


def read_parameters(
    inputs: Mapping[str, Any],
    *,
    beside: frozenset[str],
    refused: frozenset[str] = frozenset(),
) -> Wanted:
    """Read all inputs but those in `beside`; those in `refused` have no meaning for the method that is asked.

    Raises:
        InvalidRequest: a parameter is ill-typed, or this engine can't do what it asks; `param` names it.
    """
    body: Json = {}
    template: Json = {}
    held: Json = {}
    for key, value in inputs.items():
        if key in beside or value is None:
            continue
        if key in refused:
            raise InvalidRequest(f"{key} is for conversations only.", param=key)
        for readers, found in ((SAMPLING, body), (FOR_TEMPLATE, template), (HELD_HERE, held)):
            if key in readers:
                found.update(readers[key](key, value))
                break
        else:
            _check_without_effect(key, value)
    wanted = Wanted(
        body=body,
        template=template,
        tools=read_tools(inputs),
        constraint=read_constraint(inputs),
        **held,
    )
    _check_together(wanted)
    return wanted


def check_messages(inputs: Mapping[str, Any]) -> list[Json]:
    """Return the conversation, which must be text.

    Raises:
        InvalidRequest: there is none, or the model can't take all of it.
    """
    messages = inputs.get("messages")
    if not messages:
        raise InvalidRequest("messages are missing.", param="messages")
    for position, message in enumerate(messages):
        check_message(f"messages[{position}]", message)
    if inputs.get("continue_final_message"):
        _check_continued(messages[-1], inputs)
    return list(messages)


def _check_continued(last: Json, inputs: Mapping[str, Any]) -> None:
    key = "continue_final_message"
    if last["role"] != "assistant":  # llama.cpp would cut the conversation off before it
        raise InvalidRequest(f"{key} needs a last message of the assistant's.", param=key)
    if inputs.get("add_generation_prompt"):
        raise InvalidRequest(f"{key} can't be combined with add_generation_prompt.", param=key)


def _check_without_effect(key: str, value: Any) -> None:
    if key not in CONSTRAINTS | TOOLS and value not in WITHOUT_EFFECT.get(key, ()):
        raise InvalidRequest(f"This engine does not support {key}.", param=key)


def _check_together(wanted: Wanted) -> None:
    """Refuse what takes two parameters to judge."""
    if wanted.body.get("ignore_eos"):
        _check_alone(wanted, "ignore_eos", {})
    if not wanted.min_tokens:
        return
    if wanted.max_tokens is not None and wanted.min_tokens > wanted.max_tokens:
        raise InvalidRequest("min_tokens is more than max_tokens.", param="min_tokens")
    _check_alone(wanted, "min_tokens", {"logprobs": wanted.logprobs is not None})


def _check_alone(wanted: Wanted, param: str, beside: Mapping[str, bool]) -> None:
    """Refuse `param`, which keeps an answer from ending, where a grammar tells its end, and `beside` what else is given."""
    held = wanted.constraint.param if wanted.constraint else ""
    tools = wanted.tools is not None and wanted.tools.choice != "none"
    for name, given in {**beside, "tools": tools, held: bool(held)}.items():
        if given:
            text = f"This engine does not support {param} beside {name}."
            raise InvalidRequest(text, param=param)


def _seed(seed: int) -> int:
    """Fold a seed into llama.cpp's 32 bits, without the last value, which means "random". Neighbours stay apart."""
    return seed % _RANDOM_SEED


CHAT_ONLY = frozenset({*TOOLS, *FOR_TEMPLATE})
"""Parameters that have no meaning beside a plain prompt."""
