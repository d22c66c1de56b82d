"""Several backend calls that feed one sink: one request, one reader, one set of limits in time.

Each call has a sink of its own, which numbers what it brings. The common one ends with the last of them, and fails with the
first that fails.
"""

from ark_trio.errors import ArkError
from ark_trio.protocol.ark_message import Message
from ark_trio.protocol.several import Numbered
from ark_trio.rpc.mailbox import FailingSink, Sink


class Part:
    """The sink of one call."""

    def __init__(self, number: int, common: Sink[Numbered], open_parts: set[int]) -> None:
        self.error: ArkError | None = None
        self._number = number
        self._common = common
        self._open_parts = open_parts

    def feed(self, message: Message, size: int = 0) -> bool:
        """Take one message; see `Sink`."""
        return self._common.feed((self._number, message), size)

    def flush(self) -> None:
        """What has been fed is all for now."""
        self._common.flush()

    async def room(self) -> None:
        """Wait until there is room. Trio-flavoured."""
        await self._common.room()

    def end(self) -> None:
        """The call ended well."""
        self._open_parts.discard(self._number)
        if not self._open_parts:
            self._common.end()

    def fail(self, error: ArkError) -> None:
        """The call ended badly, and the others with it."""
        if self._number in self._open_parts:
            self.error = error
            self._common.fail(error)


def open_parts(count: int, common: Sink[Numbered]) -> list[FailingSink[Message]]:
    """Return the sinks that feed `common`."""
    numbers = set(range(count))
    return [Part(number, common, numbers) for number in range(count)]
