"""A chat answer in one piece: steps in, one object out.

Source: OpenAI's API description 2.3.0, CreateChatCompletionResponse.
"""

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from ark_trio.protocol.choice import Choice, choice_of, expect_all_ended, open_choices
from ark_trio.protocol.function_call import told_finish
from ark_trio.protocol.logprobs import chat_logprobs
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.usage_body import usage_body


@define
class _Call:
    """One tool call so far."""

    head: ToolCallDelta
    arguments: list[str] = field(factory=list)


@define
class _Said:
    """One choice so far."""

    content: list[str] = field(factory=list)
    reasoning: list[str] = field(factory=list)
    logprobs: list[Mapping[str, Any]] = field(factory=list)
    calls: dict[int, _Call] = field(factory=dict)


class ChatFold:
    """Collects one answer. Tool calls are merged by their index, so choices and calls may interleave."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - OpenAI's name
        created: int,
        model: str,
        n: int = 1,
        functions: bool = False,
    ) -> None:
        """`functions`: calls are told in the words of 2023."""
        self._constant = {"id": id, "object": "chat.completion", "created": created, "model": model}
        self._choices = open_choices(id, n)
        self._said = [_Said() for _ in range(n)]
        self._functions = functions
        self._usage: Usage | None = None

    def feed(self, step: Step) -> None:
        """Take one step.

        Raises:
            BadBackend: the step breaks the life of a choice (see `Choice`).
        """
        if step.usage is not None:
            self._usage = step.usage
        for delta in step.choices:
            choice = choice_of(self._choices, delta)
            if choice.goes_on(delta):
                self._take(choice, delta)

    def result(self) -> dict[str, Any]:
        """Return the answer.

        Raises:
            BadBackend: some choice never ended.
        """
        expect_all_ended(self._choices)
        return {
            **self._constant,
            "choices": [
                _choice_body(choice, said, functions=self._functions)
                for choice, said in zip(self._choices, self._said, strict=True)
            ],
            "usage": usage_body(self._usage),
        }

    def _take(self, choice: Choice, delta: ChoiceDelta) -> None:
        said = self._said[choice.index]
        said.content.append(delta.content)
        said.reasoning.append(delta.reasoning)
        said.logprobs.extend(delta.logprobs)
        for call in delta.tool_calls:
            head = choice.opens(call)
            if head is not None:
                said.calls[call.index] = _Call(head)
            said.calls[call.index].arguments.append(call.arguments)
        if delta.finish_reason is not None:
            choice.end(delta.finish_reason)


def _choice_body(choice: Choice, said: _Said, *, functions: bool) -> dict[str, Any]:
    return {
        "index": choice.index,
        "message": _message_body(said, functions=functions),
        "logprobs": chat_logprobs(said.logprobs),
        "finish_reason": told_finish(choice.finish_reason, functions=functions),
    }


def _message_body(said: _Said, *, functions: bool) -> dict[str, Any]:
    content = "".join(said.content)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if said.calls and not content else content,
        "refusal": None,
    }
    if reasoning := "".join(said.reasoning):
        # Clients read one or the other.
        message |= {"reasoning_content": reasoning, "reasoning": reasoning}
    calls = [_call_body(call) for _, call in sorted(said.calls.items())]
    if calls and functions:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return message


def _call_body(call: _Call) -> dict[str, Any]:
    function = {"name": call.head.name, "arguments": "".join(call.arguments)}
    return {"id": call.head.id, "type": "function", "function": function}
