"""How one request's answer is to be read: what the client wants to see of it, and how its model writes."""

from typing import Literal

from attrs import frozen

from ark_trio.protocol.tool_text import Syntax

ReasoningMark = Literal["auto", "open", "off"]
"""The text is split if it begins with `<think>`; the template has written that already; never."""


@frozen(kw_only=True)
class Reading:
    """How to read one request's answer."""

    reasoning: ReasoningMark = "auto"
    syntaxes: tuple[Syntax, ...] = ()
    """Of tool calls."""
    tool_names: frozenset[str] = frozenset()
    include_reasoning: bool = True
    separate_reasoning: bool = True
    """False: it stays in the text, between its marks."""
    top_logprobs: int | None = None
    """Alternatives shown of each token; None: no log probabilities were asked for."""
