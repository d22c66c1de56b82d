"""What a client sends of one request, on its way to the application.

hypercorn 0.18 puts it into a memory channel, from which a task of the application's takes it. Ours offers that too, for whoever
speaks ASGI; an application that knows of it has each message handed over where it is read, and needs no task that waits for the
client to leave.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import trio
from hypercorn.trio.task_group import TaskGroup, _handle

from ark_trio.bell import Bell

KEY = "ark.inbox"
"""Of the `Inbox` in each request's `scope["state"]`."""

Message = Mapping[str, Any]
Taker = Callable[[Message], None]


class Inbox:
    """One request's. At most `limit` messages wait, and the client's leaving."""

    __slots__ = ("_limit", "_stirred", "_taker", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: list[Message] = []
        self._taker: Taker | None = None
        self._stirred = Bell()

    def hand_to(self, taker: Taker) -> None:
        """Give what waits, and from now on all that comes, to `taker`. It may raise nothing."""
        self._taker = taker
        while self._waiting:
            taker(self._waiting.pop(0))
        self._stirred.ring()

    async def put(self, message: Message) -> None:
        """Pass on a message, once there is room for it. The client's leaving needs none, so that nothing holds it up."""
        if not _is_end(message):
            await self.room()
        self.offer(message)

    @property
    def has_room(self) -> bool:
        """Another message may be offered."""
        return self._taker is not None or len(self._waiting) < self._limit

    async def room(self) -> None:
        """Wait until there is room."""
        while not self.has_room:
            await self._stirred.heard()

    def offer(self, message: Message) -> None:
        """Pass on a message for which there is room, or the client's leaving."""
        if self._taker is not None:
            self._taker(message)
        else:
            self._waiting.append(message)
            self._stirred.ring()

    async def receive(self) -> Message:
        """Return the next message, as ASGI's `receive`."""
        while not self._waiting:
            await self._stirred.heard()
        self._stirred.ring()
        return self._waiting.pop(0)


class InboxTaskGroup(TaskGroup):
    """hypercorn's, whose applications have an inbox."""

    @classmethod
    def of(cls, nursery: trio.Nursery) -> Self:
        """Return one that starts its tasks in `nursery`, which is another's to open and close."""
        group = cls()
        group._nursery = nursery
        return group

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Any
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the application on one request. What is returned passes on what the client sends."""
        inbox = Inbox(config.max_app_queue_size)
        scope["state"][KEY] = inbox
        threads = trio.to_thread.run_sync, trio.from_thread.run
        self._nursery.start_soon(_handle, app, config, scope, inbox.receive, send, *threads)  # type: ignore[union-attr, arg-type]
        return inbox.put


def inbox_of(scope: Mapping[str, Any]) -> Inbox | None:
    """Return the request's inbox; None under another's server."""
    inbox: Inbox | None = (scope.get("state") or {}).get(KEY)
    return inbox


def _is_end(message: Message) -> bool:
    return bool(message["type"] == "http.disconnect")
