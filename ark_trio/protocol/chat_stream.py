"""A streamed chat answer: steps in, server-sent events out.

What is the same in all chunks of a stream is spelled once; the common chunk (more text) is then three bytes objects put
together. Source: OpenAI's API description 2.3.0, CreateChatCompletionStreamResponse.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from ark_trio.errors import ArkError
from ark_trio.protocol.choice import Choice, choice_of, expect_all_ended, open_choices
from ark_trio.protocol.error_body import error_frames
from ark_trio.protocol.function_call import told_finish
from ark_trio.protocol.logprobs import chat_logprobs
from ark_trio.protocol.sse import DONE
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.usage_body import usage_body

_FIRST: Final = b'{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
_GOES_ON: Final = b',"logprobs":null,"finish_reason":null}]'
_END: Final = b"}\n\n"


class ChatStream:
    """One stream's encoder. Every method returns bytes to send, perhaps none, perhaps several events."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - OpenAI's name of the field
        created: int,
        model: str,
        n: int = 1,
        include_usage: bool = False,
        continuous_usage: bool = False,
        functions: bool = False,
    ) -> None:
        """`functions`: calls are told in the words of 2023."""
        constant = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: " + orjson.dumps(constant)[:-1]
        self._heads = [b'%b,"choices":[{"index":%d,"delta":' % (self._head, i) for i in range(n)]
        self._choices = open_choices(id, n)
        self._call_pieces = _function_call_pieces if functions else _tool_call_pieces
        self._functions = functions
        self._include_usage = include_usage
        self._continuous_usage = continuous_usage
        self._usage: Usage | None = None
        says_usage = include_usage or continuous_usage
        self._tail = b',"usage":null' + _END if says_usage else _END
        self._content_tail = _GOES_ON + self._tail

    def feed(self, step: Step) -> bytes:
        """Return the chunks for one step.

        Raises:
            BadBackend: the step breaks the life of a choice (see `Choice`).
        """
        if step.usage is not None:
            self._take_usage(step.usage)
        if len(step.choices) == 1:
            return self._chunks(step.choices[0])
        return b"".join(map(self._chunks, step.choices))

    def end(self) -> bytes:
        """Return what follows the last step: the totals if they were asked for, and [DONE].

        Raises:
            BadBackend: some choice never ended. Call `fail` with it.
        """
        expect_all_ended(self._choices)
        if not self._include_usage:
            return DONE
        totals = orjson.dumps(usage_body(self._usage))
        return self._head + b',"choices":[],"usage":' + totals + _END + DONE

    def fail(self, error: ArkError) -> bytes:
        """Return the end of a stream that failed after its first byte: the error and [DONE], never a made-up stop."""
        return error_frames(error)

    def _take_usage(self, usage: Usage) -> None:
        self._usage = usage
        if self._continuous_usage:
            self._tail = b',"usage":' + orjson.dumps(usage_body(usage)) + _END
            self._content_tail = _GOES_ON + self._tail

    def _chunks(self, delta: ChoiceDelta) -> bytes:
        choice = choice_of(self._choices, delta)
        if choice.finish_reason is not None and not choice.goes_on(delta):
            return b""
        chunks = b""
        if not choice.began:
            choice.began = True
            chunks = self._heads[choice.index] + _FIRST + self._tail
        if delta.tool_calls or delta.reasoning or delta.logprobs:
            chunks += self._rich_chunks(choice, delta)
        elif delta.content:
            # The path of nearly every token.
            text = b'{"content":' + orjson.dumps(delta.content) + b"}"
            chunks += self._heads[choice.index] + text + self._content_tail
        if delta.finish_reason is not None:
            reason = told_finish(choice.end(delta.finish_reason), functions=self._functions)
            chunks += self._chunk(choice, {}, finish_reason=reason)
        return chunks

    def _rich_chunks(self, choice: Choice, delta: ChoiceDelta) -> bytes:
        logprobs = chat_logprobs(delta.logprobs)
        pieces = [*_text_pieces(delta)]
        for call in delta.tool_calls:
            pieces += self._call_pieces(choice, call)
        if logprobs and not pieces:
            # A token whose text is not out yet.
            pieces.append({"content": ""})
        chunks = b""
        for piece in pieces:
            chunks += self._chunk(choice, piece, logprobs=logprobs)
            # They belong to the step, not to each of its chunks.
            logprobs = None
        return chunks

    def _chunk(
        self,
        choice: Choice,
        delta: Mapping[str, Any],
        *,
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        rest = orjson.dumps({"logprobs": logprobs, "finish_reason": finish_reason})[1:]
        return self._heads[choice.index] + orjson.dumps(delta) + b"," + rest + b"]" + self._tail


def _text_pieces(delta: ChoiceDelta) -> Iterator[dict[str, Any]]:
    """Yield the delta of what a step says, if it says anything."""
    said: dict[str, Any] = {}
    if delta.reasoning:
        # Clients read one or the other.
        said |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
    if delta.content:
        said["content"] = delta.content
    if said:
        yield said


def _tool_call_pieces(choice: Choice, call: ToolCallDelta) -> Iterator[dict[str, Any]]:
    head = choice.opens(call)
    if head is not None:
        function = {"name": head.name, "arguments": ""}
        yield _call_piece(
            {"index": call.index, "id": head.id, "type": "function", "function": function}
        )
    if call.arguments:
        yield _call_piece({"index": call.index, "function": {"arguments": call.arguments}})


def _call_piece(call: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [call]}


def _function_call_pieces(choice: Choice, call: ToolCallDelta) -> Iterator[dict[str, Any]]:
    head = choice.opens(call)
    if call.index > 0:
        return  # there is room for one
    if head is not None:
        yield {"function_call": {"name": head.name, "arguments": ""}}
    if call.arguments:
        yield {"function_call": {"arguments": call.arguments}}
