"""Log probabilities as completions spell them: four lists of one entry a token.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse.choices.logprobs.
"""

from collections.abc import Mapping, Sequence
from typing import Any


class CompletionLogprobs:
    """One choice's tokens, in the order in which they come. Remembers how long the text before them is."""

    def __init__(self, alternatives: int | None) -> None:
        self._alternatives = alternatives
        self._offset = 0

    def spell(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Return the lists for the next tokens; None: there are none, or nobody asked."""
        if not entries or self._alternatives is None:
            return None
        offsets = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [_top(entry) for entry in entries] if self._alternatives else None,
            "text_offset": offsets,
        }


def joined_logprobs(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Return several of these as one."""
    told = [part for part in parts if part is not None]
    if not told:
        return None
    return {
        name: None if told[0][name] is None else [item for part in told for item in part[name]]
        for name in told[0]
    }


def _top(entry: Mapping[str, Any]) -> dict[str, float]:
    # The token itself is among them even if likelier ones fill the list.
    top = {other["token"]: other["logprob"] for other in entry["top_logprobs"]}
    return {**top, entry["token"]: entry["logprob"]}
