"""What an engine says in one decode step, as values: the middle ground between ARK messages and OpenAI chunks.

What is made for every token is not frozen, but no less a value: a frozen class takes twice the time to make.
"""

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen


@frozen(kw_only=True)
class ToolCallDelta:
    """An increment of one tool call. The first of a call has `id` and `name`; later ones only arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@define(kw_only=True)
class ChoiceDelta:
    """An increment of one choice."""

    index: int = 0
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()
    """OpenAI's token entries: {token, logprob, bytes, top_logprobs}."""
    finish_reason: str | None = None
    """stop, length, tool_calls or content_filter, on the choice's last increment only."""


@define(kw_only=True)
class Usage:
    """Running totals of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int | None = None
    """None: the engine doesn't say."""
    cached_tokens: int | None = None
    """Prompt tokens found in the prefix cache; None: the engine doesn't say."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@define(kw_only=True)
class Step:
    """One message of the engine: increments of some choices, and the totals if it tells them."""

    choices: tuple[ChoiceDelta, ...] = field(default=())
    usage: Usage | None = None
