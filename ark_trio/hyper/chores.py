"""Tasks that a connection may come to need, and that end with its reading: most connections never need them."""

from collections.abc import Awaitable, Callable

import trio

from ark_trio.bell import Bell


class Chores:
    """One connection's. They run in its nursery, which waits for them."""

    __slots__ = ("_ended", "_nursery", "_scopes")

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._scopes: list[trio.CancelScope] = []
        """Of those that run."""
        self._ended = Bell()

    @property
    def going(self) -> bool:
        """The connection is read; chores may be started."""
        return self._nursery is not None

    def begin(self, nursery: trio.Nursery) -> None:
        """Start them there from now on."""
        self._nursery = nursery

    def start(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Start a task. False: it is too early, or too late."""
        if self._nursery is not None:
            self._nursery.start_soon(self._run, work)
        return self.going

    def stop(self) -> None:
        """Start no more."""
        self._nursery = None

    async def cancel(self) -> None:
        """End them all. Returns when they have ended."""
        self.stop()
        for scope in self._scopes:
            scope.cancel()
        while self._scopes:
            await self._ended.heard()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                if self.going:
                    await work()
            finally:
                self._scopes.remove(scope)
                self._ended.ring()
