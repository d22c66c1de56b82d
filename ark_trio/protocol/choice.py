"""The life of one choice of an answer: it begins, goes on, opens tool calls, and ends once.

Streamed and folded answers obey the same rules, so they stand here once.
"""

from ark_trio.errors import BadBackend
from ark_trio.protocol.finish_reason import legal_finish_reason
from ark_trio.protocol.step import ChoiceDelta, ToolCallDelta


class Choice:
    """What must be remembered of one choice while its increments come."""

    __slots__ = ("_call_id", "_calls", "began", "finish_reason", "index")

    def __init__(self, answer_id: str, index: int) -> None:
        self.index = index
        self.began = False
        self.finish_reason: str | None = None
        self._calls: set[int] = set()
        # Unique as the answer is, and no randomness needed.
        self._call_id = f"call_{answer_id.removeprefix('chatcmpl-')}_{index}"

    def goes_on(self, delta: ChoiceDelta) -> bool:
        """Whether `delta` may still add something. Engines repeat their last message; that adds nothing.

        Raises:
            BadBackend: the choice has ended, and `delta` has more of it.
        """
        if self.finish_reason is None:
            return True
        if delta.content or delta.reasoning or delta.tool_calls:
            raise BadBackend("The engine went on after the end of the answer.")
        return False

    def opens(self, call: ToolCallDelta) -> ToolCallDelta | None:
        """Return the head of a tool call, with id and name, if `call` is its first increment.

        Raises:
            BadBackend: the call has no name.
        """
        if call.index in self._calls:
            return None
        if not call.name:
            raise BadBackend("The engine began a tool call without a name.")
        self._calls.add(call.index)
        call_id = call.id or f"{self._call_id}_{call.index}"
        return ToolCallDelta(index=call.index, id=call_id, name=call.name)

    def end(self, word: str) -> str:
        """Record the end and return OpenAI's word for it: whatever was required or named, calls end in `tool_calls`."""
        reason = legal_finish_reason(word)
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        self.finish_reason = reason
        return reason


def open_choices(answer_id: str, n: int) -> tuple[Choice, ...]:
    """Return the n choices of an answer."""
    return tuple(Choice(answer_id, index) for index in range(n))


def choice_of(choices: tuple[Choice, ...], delta: ChoiceDelta) -> Choice:
    """Return the choice that `delta` belongs to.

    Raises:
        BadBackend: nobody asked for that choice.
    """
    if not 0 <= delta.index < len(choices):
        raise BadBackend("The engine answered a choice that was not asked for.")
    return choices[delta.index]


def expect_all_ended(choices: tuple[Choice, ...]) -> None:
    """Raise BadBackend unless every choice has ended: a missing end is never made up."""
    if any(choice.finish_reason is None for choice in choices):
        raise BadBackend("The engine stopped before the answer was complete.")
