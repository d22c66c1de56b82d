"""From messages to bytes, a piece at a time."""

from typing import Generic, TypeVar

from ark_trio.relay.steps import Steps, StreamEncoder

M = TypeVar("M")

_PIECE_BYTES = 64 << 10
"""The most that is gathered for one write, up to a message."""


class Spelling(Generic[M]):
    """Spells one stream's messages, and keeps the first fault for the task that answers."""

    __slots__ = ("_answer", "_bytes", "_events", "_steps", "failure")

    def __init__(self, steps: Steps[M], answer: StreamEncoder) -> None:
        self._steps = steps
        self._answer = answer
        self._events: list[bytes] = []
        self._bytes = 0
        self.failure: Exception | None = None
        """Why no more can be spelled; what came before is none the worse."""

    async def take(self, patience_s: float) -> list[M] | None:
        """Return the messages that wait, as `Steps.take_messages`.

        Raises:
            Exception: the fault that was met before.
        """
        if self.failure is not None:
            raise self.failure
        return await self._steps.take_messages(patience_s)

    def spell(self, messages: list[M]) -> bytes:
        """Return the bytes of `messages`, up to the first that can't be spelled."""
        for message in messages:
            self.add(message)
        return self.piece()[0]

    def add(self, message: M) -> bool:
        """Spell one more message; False: enough for one write, or none can be spelled. Raises nothing."""
        if self.failure is not None:
            return False
        try:
            events = self._answer.feed(self._steps.read(message))
        except Exception as error:  # noqa: BLE001 (raised in the task that answers)
            self.failure = error
            return False
        self._events.append(events)
        self._bytes += len(events)
        return self._bytes < _PIECE_BYTES

    def piece(self) -> tuple[bytes, int]:
        """Return what was spelled since the last time, perhaps nothing, and of how many messages."""
        count, piece = len(self._events), b"".join(self._events)
        self._events.clear()
        self._bytes = 0
        return piece, count
