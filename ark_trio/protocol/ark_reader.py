"""Reading the messages of one engine: parsed, or known by their shape. It learns shapes as it goes; nobody depends on them.

An engine whose messages never repeat a shape, as where maps are written in a new order each time, costs a look at one in
`_THEN_EACH`.
"""

from typing import Final

from ark_trio.protocol.ark_message import Message
from ark_trio.protocol.ark_shape import Shape, shape_of
from ark_wire import ark_pb2

_MOST_SHAPES: Final = 256
_MOST_BYTES: Final = 2048
"""Of a message worth a shape: those with much in them are no single token's."""
_FIRST: Final = 64
_THEN_EACH: Final = 32


class MessageReader:
    """Reads an engine's messages. A shape costs twice its message's length in memory; one a length is kept, and one of ends."""

    def __init__(self) -> None:
        self._shapes: dict[int, Shape] = {}
        self._ends: dict[int, Shape] = {}
        """Of messages that end a choice: by themselves, since they come once an answer and must not displace a token's."""
        self._parsed = 0

    def read(self, raw: bytes) -> Message:
        """Return a message.

        Raises:
            DecodeError: it is none.
        """
        shape = self._shapes.get(len(raw))
        known = shape and shape.read(raw)
        return known or self._read_end(raw)

    def _read_end(self, raw: bytes) -> Message:
        end = self._ends.get(len(raw))
        known = end and end.read(raw)
        return known or self._parse(raw)

    def _parse(self, raw: bytes) -> Message:
        message = ark_pb2.InferenceResponse.FromString(raw)
        self._parsed += 1
        if len(raw) <= _MOST_BYTES and (self._parsed <= _FIRST or self._parsed % _THEN_EACH == 0):
            self._learn(raw, message)
        return message

    def _learn(self, raw: bytes, message: ark_pb2.InferenceResponse) -> None:
        shape = shape_of(raw, message)
        if shape is None:
            return
        shapes = self._shapes if shape.finish_reason is None else self._ends
        if len(shapes) >= _MOST_SHAPES:
            shapes.clear()
        shapes[len(raw)] = shape
