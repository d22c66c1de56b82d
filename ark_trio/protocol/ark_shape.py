"""The shape of a message: all of its bytes but the text, the totals and the ids that differ from token to token.

An engine's messages are 450 bytes of which a dozen change. Parsing one and reading its fields takes 8 µs; seeing that it has
the shape of one that was parsed before takes 1. It is no search: tags, keys and lengths are compared, all at once, in the
places that they had there, so bytes that have the shape are parsed alike by any parser of protocol buffers. What may differ is
the inside of leaves of fixed length: text, which must be valid UTF-8, and varints, whose continuation bits are compared too.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import evolve, frozen

from ark_trio.errors import BadBackend
from ark_trio.protocol.ark_message import TextMessage
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.step import ChoiceDelta
from ark_wire import ark_pb2

Span = tuple[int, int]
"""Where something begins, and where it has ended."""

_VARINT, _BYTES = 0, 2
_KEY: Final = 1 << 3 | _BYTES
_VALUE: Final = 2 << 3 | _BYTES
_FIELDS: Final = 1 << 3 | _BYTES
_REQ_ID: Final = ark_pb2.InferenceResponse.REQ_ID_FIELD_NUMBER << 3 | _BYTES
_MODEL_NAME: Final = ark_pb2.InferenceResponse.MODEL_NAME_FIELD_NUMBER << 3 | _BYTES
_OUTPUTS: Final = ark_pb2.InferenceResponse.OUTPUTS_FIELD_NUMBER << 3 | _BYTES
_INT64: Final = ark_pb2.Value.INT64__FIELD_NUMBER << 3 | _VARINT
_RAW: Final = ark_pb2.Value.BYTES__FIELD_NUMBER << 3 | _BYTES
_TEXT: Final = ark_pb2.Value.STRING__FIELD_NUMBER << 3 | _BYTES
_STRUCT: Final = ark_pb2.Value.STRUCT__FIELD_NUMBER << 3 | _BYTES

_NO_TEXT: Final[Span] = (0, 0)
_ANY, _HIGH_BIT = 0x00, 0x80
"""Of a byte that may differ: nothing is compared; that it goes on or is ASCII."""
_POSITIVE_BYTES: Final = 9
"""The longest varint of a 64-bit integer that isn't negative."""


class _Unlike(Exception):
    """No message of the common kind."""


@frozen
class Shape:
    """What messages of one length have in common."""

    mask: int
    """The bits that are compared, of all bytes as one little-endian number."""
    want: int
    """What these bits are."""
    text: slice
    reasoning: bool
    """The text is reasoning, not content."""
    index: int
    """Where the choice's index stands, in one byte."""
    counts: tuple[Span | int | None, ...]
    """Where those of `TextMessage.counts` stand, by one number if in one byte."""
    finish_reason: str | None = None
    """What it ends its choice by, which is compared with all else; None: the choice goes on."""

    def read(self, raw: bytes) -> TextMessage | None:
        """Return what `raw`, which must have this shape's length, says; None: its shape is another."""
        if int.from_bytes(raw, "little") & self.mask != self.want:
            return None
        try:
            text = raw[self.text].decode()
        except UnicodeDecodeError:
            return None  # the parser is to say what is wrong with it
        index = raw[self.index]
        delta = (
            ChoiceDelta(index=index, reasoning=text)
            if self.reasoning
            else ChoiceDelta(index=index, content=text)
        )
        if self.finish_reason is not None:
            delta.finish_reason = self.finish_reason
        return TextMessage(
            delta,
            # Of one byte, as most are, it is that byte.
            [raw[at] if isinstance(at, int) else at and _varint(raw, *at) for at in self.counts],
        )


def shape_of(raw: bytes, message: ark_pb2.InferenceResponse) -> Shape | None:
    """Return the shape of a message that has been parsed, if it is of the common kind."""
    try:
        shape = _Reading(raw).shape()
        step = ResponseDecoder().feed(message)
        shape = evolve(shape, finish_reason=step.choices[0].finish_reason)
        if shape.text == slice(*_NO_TEXT) and shape.finish_reason is None:
            return None  # it says nothing
        known = shape.read(raw)
        # What else is in the message is the same in all of this shape, so once is enough to see that it adds nothing.
        alike = known and step == ResponseDecoder().feed(known)
    except (_Unlike, BadBackend):
        return None
    return shape if alike else None


class _Reading:
    """One message being looked at, for the places that may differ. Every method raises _Unlike."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._mask = bytearray(b"\xff" * len(raw))

    def shape(self) -> Shape:
        """Return it."""
        outputs = self._outputs()
        choice = self._struct(outputs.get(b"choice"))
        index = self._leaf(choice.get(b"index"), _INT64)
        if index[1] - index[0] != 1:
            raise _Unlike
        text, reasoning = self._text(self._struct(choice.get(b"message")))
        for key, tag in ((b"choice.message.content", _RAW), (b"choice.index", _INT64)):
            if key in outputs:  # a copy for older readers
                self._leaf(outputs[key], tag)
        counts = tuple(span and _place(span) for span in self._counts(outputs))
        mask = int.from_bytes(self._mask, "little")
        return Shape(
            mask=mask,
            want=int.from_bytes(self._raw, "little") & mask,
            text=slice(*text),
            reasoning=reasoning,
            index=index[0],
            counts=counts,
        )

    def _text(self, message: Mapping[bytes, Span]) -> tuple[Span, bool]:
        for key in (b"content", b"reasoning_content"):
            if key in message:
                begin, end = self._leaf(message[key], _TEXT)
                if begin < end:
                    return (begin, end), key != b"content"
        return _NO_TEXT, False

    def _outputs(self) -> dict[bytes, Span]:
        outputs: dict[bytes, Span] = {}
        for tag, begin, end in self._fields((0, len(self._raw))):
            if tag == _REQ_ID and self._raw[begin:end].isascii():
                self._may_differ((begin, end), _HIGH_BIT)
            elif tag == _OUTPUTS:
                self._add_entry(outputs, (begin, end))
            elif tag != _MODEL_NAME:
                raise _Unlike
        return outputs

    def _counts(self, outputs: Mapping[bytes, Span]) -> tuple[Span | None, ...]:
        """Return where the totals are that the decoder would read: nested ones, or else flat."""
        found: dict[bytes, Span] = {}
        for key, span in outputs.items():
            if key.startswith((b"usage", b"cache")):
                self._free_counts(key, span, found)
        usage, cache = (key + (b"/" if key in outputs else b".") for key in (b"usage", b"cache"))
        prompt, completion = (
            found.get(usage + b"prompt_tokens"),
            found.get(usage + b"completion_tokens"),
        )
        cached = found.get(cache + b"prompt_cache_hit_tokens")
        if prompt is None and completion is None:
            return None, None, None, cached
        details = (
            b"usage/completion_tokens_details/reasoning_tokens",
            b"usage/prompt_tokens_details/cached_tokens",
        )
        reasoning, cached_too = map(found.get, details)
        return prompt, completion, reasoning, cached or cached_too

    def _free_counts(self, path: bytes, span: Span, found: dict[bytes, Span]) -> None:
        """Let the counts at `path` and below differ."""
        tag, _, _ = self._only_field(span)
        if tag == _STRUCT:
            for key, inner in self._struct(span).items():
                self._free_counts(path + b"/" + key, inner, found)
        elif tag == _INT64:
            found[path] = self._leaf(span, _INT64)

    def _leaf(self, value: Span | None, wanted: int) -> Span:
        """Let the leaf in a Value differ, and return where it is."""
        tag, begin, end = self._only_field(value)
        if tag != wanted or (tag == _INT64 and end - begin > _POSITIVE_BYTES):
            raise _Unlike
        self._may_differ((begin, end), _HIGH_BIT if tag == _INT64 else _ANY)
        return begin, end

    def _may_differ(self, span: Span, compared: int) -> None:
        begin, end = span
        self._mask[begin:end] = bytes((compared,)) * (end - begin)

    def _struct(self, value: Span | None) -> dict[bytes, Span]:
        tag, *inner = self._only_field(value)
        if tag != _STRUCT:
            raise _Unlike
        entries: dict[bytes, Span] = {}
        for field, begin, end in self._fields((inner[0], inner[1])):
            if field != _FIELDS:  # of a contract newer than ours
                raise _Unlike
            self._add_entry(entries, (begin, end))
        return entries

    def _add_entry(self, entries: dict[bytes, Span], entry: Span) -> None:
        parts = [*self._fields(entry)]
        if [tag for tag, _, _ in parts] != [_KEY, _VALUE]:
            raise _Unlike
        (_, begin, end), (_, *value) = parts
        entries[self._raw[begin:end]] = (
            value[0],
            value[1],
        )  # as in any parser, the last of a key counts

    def _only_field(self, value: Span | None) -> tuple[int, int, int]:
        parts = [] if value is None else [*self._fields(value)]
        if len(parts) != 1:
            raise _Unlike
        return parts[0]

    def _fields(self, message: Span) -> Iterator[tuple[int, int, int]]:
        """Yield tag and place of each field of a message that is known to be well-formed."""
        raw, (at, end) = self._raw, message
        while at < end:
            tag, begin = raw[at], at + 1
            if tag & _HIGH_BIT:
                raise _Unlike
            at = _after_varint(raw, begin)
            if tag & 7 == _BYTES:
                begin, at = at, at + _varint(raw, begin, at)
            elif tag & 7 != _VARINT:
                raise _Unlike
            yield tag, begin, at


def _place(span: Span) -> Span | int:
    return span[0] if span[1] - span[0] == 1 else span


def _after_varint(raw: bytes, at: int) -> int:
    while raw[at] & _HIGH_BIT:
        at += 1
    return at + 1


def _varint(raw: bytes, begin: int, end: int) -> int:
    number = raw[end - 1]
    for at in range(end - 2, begin - 1, -1):
        number = number << 7 | raw[at] & 0x7F
    return number
