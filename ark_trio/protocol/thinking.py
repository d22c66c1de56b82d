"""Whether and how much a model is to think, in the spellings of several APIs, as what chat templates read.

Templates know `thinking` (DeepSeek) or `enable_thinking` (Qwen); what the client itself sets in `chat_template_kwargs` wins.
"""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.structure import structure

TEMPLATE: str = "chat_template_kwargs"


@frozen(kw_only=True)
class Thinking:
    """DeepSeek's switch; Anthropic's has the same words."""

    type: Literal["enabled", "disabled", "auto"]
    budget_tokens: None = None
    """A budget is refused: nothing here could keep it."""


def parse_thinking(value: Any) -> bool | None:
    """Return whether the model is to think; None: as it likes."""
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, dict):
        raise unexpected("an object with a type", value)
    if value.get("budget_tokens") is not None:
        raise Fault("is not available here: use max_completion_tokens", place="budget_tokens")
    kind = structure(value, Thinking).type
    return None if kind == "auto" else kind == "enabled"


def thinking_inputs(thinks: bool) -> Mapping[str, Any]:  # noqa: FBT001 - the parameter's value
    """Return the engine's inputs for a switch."""
    return {TEMPLATE: {"thinking": thinks, "enable_thinking": thinks}}


def effort_inputs(effort: str) -> Mapping[str, Any]:
    """Return the engine's inputs for `reasoning_effort`: itself, and for "none" the switch that templates know."""
    inputs = {"reasoning_effort": effort}
    return {**inputs, **thinking_inputs(False)} if effort == "none" else inputs  # noqa: FBT003
