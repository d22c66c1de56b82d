"""A streamed completion: steps in, server-sent events out.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse, which is the shape of the events too.
"""

from typing import Any

from ark_trio.errors import ArkError
from ark_trio.protocol.choice import choice_of, expect_all_ended, open_choices
from ark_trio.protocol.completion_logprobs import CompletionLogprobs
from ark_trio.protocol.error_body import error_frames
from ark_trio.protocol.finish_reason import text_finish
from ark_trio.protocol.sse import DONE, frame
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.protocol.usage_body import usage_body


class CompletionStream:
    """One stream's encoder. Every method returns bytes to send, perhaps none, perhaps several events."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - OpenAI's name of the field
        created: int,
        model: str,
        choices: int = 1,
        alternatives: int | None = None,
        include_usage: bool = False,
        continuous_usage: bool = False,
    ) -> None:
        self._constant = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._choices = open_choices(id, choices)
        self._logprobs = [CompletionLogprobs(alternatives) for _ in range(choices)]
        self._include_usage = include_usage
        self._continuous_usage = continuous_usage
        self._usage: Usage | None = None

    def feed(self, step: Step) -> bytes:
        """Return the events for one step.

        Raises:
            BadBackend: the step breaks the life of a choice (see `Choice`).
        """
        if step.usage is not None:
            self._usage = step.usage
        return b"".join(map(self._events, step.choices))

    def end(self) -> bytes:
        """Return what follows the last step: the totals if they were asked for, and [DONE].

        Raises:
            BadBackend: some choice never ended. Call `fail` with it.
        """
        expect_all_ended(self._choices)
        if not self._include_usage:
            return DONE
        return frame({**self._constant, "choices": [], "usage": usage_body(self._usage)}) + DONE

    def fail(self, error: ArkError) -> bytes:
        """Return the end of a stream that failed after its first byte."""
        return error_frames(error)

    def _events(self, delta: ChoiceDelta) -> bytes:
        choice = choice_of(self._choices, delta)
        if not choice.goes_on(delta):
            return b""
        logprobs = self._logprobs[delta.index].spell(delta.logprobs)
        events = b""
        if delta.content or logprobs:
            events = self._event(delta.index, delta.content, logprobs)
        if delta.finish_reason is not None:
            reason = text_finish(choice.end(delta.finish_reason))
            events += self._event(delta.index, "", None, reason)
        return events

    def _event(
        self, index: int, text: str, logprobs: Any, finish_reason: str | None = None
    ) -> bytes:
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        event: dict[str, Any] = {**self._constant, "choices": [choice]}
        if self._include_usage or self._continuous_usage:
            event["usage"] = usage_body(self._usage) if self._continuous_usage else None
        return frame(event)
