"""Reasoning that an engine left in the text, between `<think>` and `</think>`, told apart however the text is cut.

Only the beginning of an answer can be reasoning: a `<think>` later on is text, as the model may be writing about it.
White space around the two marks belongs to neither side. Source: the chat templates of DeepSeek-R1 and Qwen3.
"""

from enum import Enum
from typing import Final

from ark_trio.protocol.held import held_from

BEGIN: Final = "<think>"
END: Final = "</think>"


class _Stand(Enum):
    BEFORE = "before"
    """Nothing but white space, or a part of the first mark."""
    THINKING = "thinking"
    AFTER = "after"
    """The end has come; white space before the answer is dropped."""
    ANSWER = "answer"


class ReasoningText:
    """Splits one choice's text. `opened`: the model's template has written `<think>` already."""

    def __init__(self, *, opened: bool = False) -> None:
        self._opened = opened
        self._stand = _Stand.BEFORE
        self._held = ""
        self._fresh = True
        """No thought has come yet, so white space is dropped."""

    @property
    def settled(self) -> bool:
        """All that follows is answer, and nothing is held."""
        return self._stand is _Stand.ANSWER

    def feed(self, text: str) -> tuple[str, str]:
        """Return what `text` adds to the reasoning and to the answer."""
        self._held += text
        reasoning = ""
        if self._stand is _Stand.BEFORE:
            self._look_for_begin()
        if self._stand is _Stand.THINKING:
            reasoning = self._think()
        if self._stand is _Stand.AFTER:
            self._held = self._held.lstrip()
            if self._held:
                self._stand = _Stand.ANSWER
        answer = ""
        if self._stand is _Stand.ANSWER:
            answer, self._held = self._held, ""
        return reasoning, answer

    def end(self) -> tuple[str, str]:
        """Return what was held: reasoning if it was never ended, else answer."""
        held, self._held = self._held, ""
        thinking = self._stand is _Stand.THINKING
        self._stand = _Stand.ANSWER
        return (held, "") if thinking else ("", held)

    def _look_for_begin(self) -> None:
        text = self._held.lstrip()
        if text.startswith(BEGIN):
            self._begin(text.removeprefix(BEGIN))
        elif not BEGIN.startswith(text):  # an empty text could still become anything
            if self._opened:
                self._begin(text)
            else:
                self._stand = _Stand.ANSWER

    def _begin(self, text: str) -> None:
        self._held = text
        self._stand = _Stand.THINKING

    def _think(self) -> str:
        if self._fresh:
            self._held = self._held.lstrip()
            self._fresh = not self._held
        thoughts, end, rest = self._held.partition(END)
        if end:
            self._held = rest
            self._stand = _Stand.AFTER
            return thoughts.rstrip()
        safe = len(self._held[: held_from(self._held, (END,))].rstrip())
        thoughts, self._held = self._held[:safe], self._held[safe:]
        return thoughts
