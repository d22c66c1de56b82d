"""A wake-up call for whoever waits now. An event of Trio's holds a set from the beginning; most of an open stream's never ring."""

import trio


class Bell:
    """Unlike an event it has no state: who comes after it has rung waits for the next time, so look before you wait."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def ring(self) -> None:
        """Wake all who wait."""
        if self._event is not None:
            event, self._event = self._event, None
            event.set()

    async def heard(self) -> None:
        """Wait until it rings. Trio-flavoured."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
