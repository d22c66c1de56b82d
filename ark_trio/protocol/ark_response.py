"""An engine's messages as steps: the path that every token takes.

Nested `choice` is read if it is there, else the flat keys of older engines, whose bytes may be cut inside a character.
Fields are taken straight from the google.protobuf message, without building the JSON around them.
Source: docs/engine.md, "Response outputs".
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from typing import Final

from ark_trio.protocol.ark_fields import Fields, read_count, read_fields, read_text
from ark_trio.protocol.ark_message import Message, TextMessage
from ark_trio.protocol.ark_tool_calls import read_tool_calls
from ark_trio.protocol.ark_usage import Totals
from ark_trio.protocol.finish_reason import legal_finish_reason
from ark_trio.protocol.logprobs import token_entries
from ark_trio.protocol.step import ChoiceDelta, Step
from ark_trio.protocol.value import from_value
from ark_wire import ark_pb2

_Utf8: Final = getincrementaldecoder("utf-8")
_FLAT_KEYS: Final = (
    "choice.message.content",
    "choice.finish_reason",
    "choice.index",
    "choice.message.role",
)


class ResponseDecoder:
    """Turns one stream's messages into steps. Holds what one message leaves to the next: half characters, totals."""

    def __init__(self) -> None:
        self._halves: dict[int, IncrementalDecoder] = {}
        self._totals = Totals()

    def feed(self, response: Message) -> Step:
        """Return what the message adds. Its `usage` is None where the message tells no totals.

        Raises:
            BadBackend: a known key holds a value of another type, or the choice ended irregularly.
        """
        if isinstance(response, TextMessage):
            delta = response.delta
            if delta.finish_reason is not None:
                delta.content += self._rest(delta.index)
            return Step(choices=(delta,), usage=self._totals.add(*response.counts))
        outputs = response.outputs
        choice = read_fields(outputs.get("choice"), "choice")
        if choice is not None:
            delta = self._nested(choice, outputs)
        elif any(key in outputs for key in _FLAT_KEYS):
            delta = self._flat(outputs)
        else:
            return Step(usage=self._totals.read(outputs))
        return Step(choices=(delta,), usage=self._totals.read(outputs))

    def end(self) -> Step:
        """Return the rest: a character that the engine never finished becomes U+FFFD."""
        rests = {index: half.decode(b"", True) for index, half in sorted(self._halves.items())}  # noqa: FBT003
        return Step(
            choices=tuple(
                ChoiceDelta(index=index, content=rest) for index, rest in rests.items() if rest
            )
        )

    def _nested(self, choice: Fields, outputs: Fields) -> ChoiceDelta:
        index = _index(choice.get("index"), outputs)
        finish_reason = _finish_reason(choice.get("finish_reason"), outputs)
        message = read_fields(choice.get("message"), "choice.message") or {}
        content = self._text(index, message.get("content"), ended=finish_reason is not None)
        calls, logprobs = message.get("tool_calls"), choice.get("logprobs")
        return ChoiceDelta(
            index=index,
            content=content,
            reasoning=read_text(message.get("reasoning_content"), "reasoning_content"),
            tool_calls=() if calls is None else read_tool_calls(from_value(calls)),
            logprobs=() if logprobs is None else token_entries(from_value(logprobs)),
            finish_reason=finish_reason,
        )

    def _flat(self, outputs: Fields) -> ChoiceDelta:
        index = _index(None, outputs)
        finish_reason = _finish_reason(None, outputs)
        content = outputs.get("choice.message.content")
        return ChoiceDelta(
            index=index,
            content=self._text(index, content, ended=finish_reason is not None),
            finish_reason=finish_reason,
        )

    def _text(self, index: int, content: ark_pb2.Value | None, *, ended: bool) -> str:
        if content is None:
            text = ""
        elif raw := content.bytes_:
            text = self._half(index).decode(raw)
        else:
            text = read_text(content, "choice.message.content")
        return text + self._rest(index) if ended else text

    def _rest(self, index: int) -> str:
        """Return what is left of a choice that ends: a character that was never finished."""
        half = self._halves.pop(index, None)
        return "" if half is None else half.decode(b"", True)  # noqa: FBT003 - the codec's own signature

    def _half(self, index: int) -> IncrementalDecoder:
        half = self._halves.get(index)
        if half is None:
            half = self._halves[index] = _Utf8(errors="replace")
        return half


def _index(nested: ark_pb2.Value | None, outputs: Fields) -> int:
    index = read_count(nested, "choice.index")
    if index is None:
        index = read_count(outputs.get("choice.index"), "choice.index")
    return index or 0


def _finish_reason(nested: ark_pb2.Value | None, outputs: Fields) -> str | None:
    # Engines write "" for "not yet".
    word = read_text(nested, "choice.finish_reason") or read_text(
        outputs.get("choice.finish_reason"), "choice.finish_reason"
    )
    return legal_finish_reason(word) if word else None
