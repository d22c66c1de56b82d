"""One choice as llama.cpp says it, in chunks, as steps of an answer. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field

from ark_trio.engine.llama.stops import Said, StopFilter
from ark_trio.errors import InternalError
from ark_trio.protocol.ark_tool_calls import read_tool_calls
from ark_trio.protocol.finish_reason import legal_finish_reason
from ark_trio.protocol.logprobs import token_entries
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.tool_text import ToolText

Json = Mapping[str, Any]

_STOP_TYPES = {"eos": "stop", "word": "stop", "limit": "length"}


@define(kw_only=True)
class ChoiceReader:
    """Reads one choice. Its finish is held back until the totals are known, so both leave together."""

    index: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that no one had to compute for this request."""
    said_before: int
    """Completion tokens of the choices before."""
    stops: StopFilter
    stop_tokens: frozenset[int] = frozenset()
    tool_text: ToolText | None = None
    """Where calls come as text: what tells them apart."""
    new_call_id: Callable[[], str] = field(default=lambda: "")
    timings: dict[str, Any] = field(factory=dict)
    """llama.cpp's latest."""
    finish: str | None = None
    _earlier: int = 0
    """Tokens that were generated beforehand, to be at least so many."""
    _reasoning: int = 0
    """Tokens generated when reasoning was last said."""
    _called: bool = False

    @property
    def completion_tokens(self) -> int:
        """Tokens generated for all choices so far."""
        return self.said_before + self._generated

    @property
    def done(self) -> bool:
        """A stop has come: nothing more is wanted."""
        return self.stops.stopped

    @property
    def _generated(self) -> int:
        return self._earlier + int(self.timings.get("predicted_n", 0))

    def feed_first(self, text: str, tokens: int) -> Step | None:
        """Return what text adds that is said without regard to stops; `tokens`: so many more have been generated."""
        self._earlier += tokens
        return self._step(ChoiceDelta(index=self.index, content=text)) if text else None

    def feed_chat(self, chunk: Json) -> Step | None:
        """Return what a chunk of the chat endpoint adds, if anything."""
        self._note_timings(chunk)
        for choice in chunk.get("choices", ()):
            if choice.get("finish_reason"):
                self.finish = legal_finish_reason(choice["finish_reason"])
            delta = choice.get("delta") or {}
            said = self._said(delta.get("content") or "", choice.get("logprobs"))
            reasoning = delta.get("reasoning_content") or ""
            if reasoning:
                self._reasoning = self._generated
            return self._added(said, reasoning, read_tool_calls(delta.get("tool_calls")))
        return None

    def feed_completion(self, chunk: Json) -> Step | None:
        """Return what a chunk of the completion endpoint adds, if anything."""
        self._note_timings(chunk)
        if chunk.get("stop"):
            self.finish = _STOP_TYPES.get(chunk.get("stop_type", ""))
        if self.stop_tokens.intersection(chunk.get("tokens") or ()):
            if not self.stops.include:
                chunk = {}
            step = self._said_text(chunk)
            self.stops.stopped = True
            return step
        return self._said_text(chunk)

    def end(self) -> Step:
        """Return the choice's end, with its reason and the totals.

        Raises:
            InternalError: llama.cpp's answer just broke off.
        """
        if self.done:
            self.finish = "stop"
        if self.finish is None:
            raise InternalError("The engine broke the answer off.")
        text = ""
        calls: tuple[ToolCallDelta, ...] = ()
        if self.tool_text is not None and not self.done:
            rest = self.tool_text.end(cut=self.finish == "length")
            text, calls = rest.content, self._with_ids(rest.calls)
        before = self.stops.feed(text)
        after = self.stops.end()
        if self._called and self.finish == "stop":
            self.finish = "tool_calls"
        delta = ChoiceDelta(
            index=self.index,
            content=before.text + after.text,
            tool_calls=calls,
            logprobs=before.entries + after.entries,
            finish_reason=self.finish,
        )
        return self._step(delta)

    def _said_text(self, chunk: Json) -> Step | None:
        logprobs = {"content": chunk.get("completion_probabilities") or []}
        text = chunk.get("content") or ""
        calls: tuple[ToolCallDelta, ...] = ()
        if self.tool_text is not None:
            told = self.tool_text.feed(text)
            text, calls = told.content, self._with_ids(told.calls)
        return self._added(self._said(text, logprobs), "", calls)

    def _said(self, text: str, logprobs: Any) -> Said:
        # A token without text is the end, or another mark.
        entries = tuple(entry for entry in token_entries(logprobs) if entry.get("token"))
        return self.stops.feed(text, entries)

    def _added(self, said: Said, reasoning: str, calls: tuple[ToolCallDelta, ...]) -> Step | None:
        self._called = self._called or bool(calls)
        delta = ChoiceDelta(
            index=self.index,
            content=said.text,
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=said.entries,
        )
        return None if delta == ChoiceDelta(index=self.index) else self._step(delta)

    def _with_ids(self, calls: tuple[ToolCallDelta, ...]) -> tuple[ToolCallDelta, ...]:
        self._called = self._called or bool(calls)
        return tuple(
            call if call.name is None else evolve(call, id=self.new_call_id()) for call in calls
        )

    def _note_timings(self, chunk: Json) -> None:
        if "timings" in chunk:
            self.timings = chunk["timings"]

    def _step(self, delta: ChoiceDelta) -> Step:
        usage = Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            reasoning_tokens=self._reasoning or None,
            cached_tokens=self.cached_tokens,
        )
        return Step(choices=(delta,), usage=usage)
