"""llama.cpp's chunks as steps. Pure; one reader a choice."""

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field

from ark_trio.errors import InternalError
from ark_trio.protocol.ark_tool_calls import read_tool_calls
from ark_trio.protocol.finish_reason import legal_finish_reason
from ark_trio.protocol.logprobs import token_entries
from ark_trio.protocol.step import ChoiceDelta, Step, Usage

Json = Mapping[str, Any]

_STOP_TYPES = {"eos": "stop", "word": "stop", "limit": "length"}


@define
class ChunkReader:
    """Reads one choice's chunks. Its finish is held back until the totals are known, so both leave together."""

    index: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that no one had to compute for this request."""
    said_before: int
    """Completion tokens of the choices before."""
    timings: dict[str, Any] = field(factory=dict)
    """llama.cpp's latest."""
    finish: str | None = None

    @property
    def completion_tokens(self) -> int:
        """Tokens generated for all choices so far."""
        return self.said_before + int(self.timings.get("predicted_n", 0))

    def feed_chat(self, chunk: Json) -> Step | None:
        """Return what a chunk of the chat endpoint adds, if anything."""
        self._note_timings(chunk)
        for choice in chunk.get("choices", ()):
            if choice.get("finish_reason"):
                self.finish = legal_finish_reason(choice["finish_reason"])
            delta = self._chat_delta(choice)
            if delta is not None:
                return self._step(delta)
        return None

    def feed_completion(self, chunk: Json) -> Step | None:
        """Return what a chunk of the completion endpoint adds, if anything."""
        self._note_timings(chunk)
        if chunk.get("stop"):
            self.finish = _STOP_TYPES.get(chunk.get("stop_type", ""))
        entries = token_entries({"content": chunk.get("completion_probabilities") or []})
        if not chunk.get("content") and not entries:
            return None
        return self._step(ChoiceDelta(index=self.index, content=chunk["content"], logprobs=entries))

    def end(self) -> Step:
        """Return the choice's end, with its reason and the totals.

        Raises:
            InternalError: llama.cpp's answer just broke off.
        """
        if self.finish is None:
            raise InternalError("The engine broke the answer off.")
        return self._step(ChoiceDelta(index=self.index, finish_reason=self.finish))

    def _note_timings(self, chunk: Json) -> None:
        if "timings" in chunk:
            self.timings = chunk["timings"]

    def _chat_delta(self, choice: Json) -> ChoiceDelta | None:
        delta = choice.get("delta") or {}
        found = ChoiceDelta(
            index=self.index,
            content=delta.get("content") or "",
            reasoning=delta.get("reasoning_content") or "",
            tool_calls=read_tool_calls(delta.get("tool_calls")),
            logprobs=token_entries(choice.get("logprobs")),
        )
        return None if found == evolve(ChoiceDelta(), index=self.index) else found

    def _step(self, delta: ChoiceDelta) -> Step:
        usage = Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
        )
        return Step(choices=(delta,), usage=usage)
