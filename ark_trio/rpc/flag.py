"""asyncio's event in a few bytes: an open stream has five, and nearly none of them has anybody waiting.

asyncio's own holds a deque from the beginning: 760 bytes each, 3.8 KB a stream.
"""

import asyncio


class Flag:
    """As `asyncio.Event`."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._is_set = True
        for future in self._waiting or ():
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        """Make whoever comes now wait."""
        self._is_set = False

    async def wait(self) -> bool:
        """Wait until it is set. asyncio-flavoured."""
        if self._is_set:
            return True
        future = asyncio.get_running_loop().create_future()
        self._waiting = [*(self._waiting or ()), future]
        try:
            await future
        finally:
            self._waiting = [other for other in self._waiting or () if other is not future] or None
        return True
