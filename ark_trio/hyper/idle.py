"""When a connection has been idle for too long, or the server ends: a deadline of the task that reads, instead of a task.

hypercorn 0.18 starts a task, in a nursery of its own, each time a connection becomes idle, and cancels it when a request comes:
0.1 ms of each request's processor time.
"""

import math
from typing import Any

import trio
from hypercorn.trio.worker_context import EventWrapper, WorkerContext

_LAST_S = 1.0
"""What a connection that becomes idle when the server ends is given to close by itself."""


class Termination(EventWrapper):
    """That the server ends. Connections that are idle then end at once."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: set[trio.CancelScope] = set()

    async def set(self) -> None:
        """Say so."""
        await super().set()
        for scope in tuple(self.idle):
            scope.cancel()


class EndingContext(WorkerContext):
    """hypercorn's, whose end is heard without a task that waits for it."""

    def __init__(self, max_requests: int | None = None) -> None:
        super().__init__(max_requests)
        self.terminated: Any = Termination()


class IdleDeadline:
    """What runs in `scope` is cancelled when the connection has been idle too long, or the server ends."""

    __slots__ = ("_config", "_termination", "_until", "idle", "scope")

    def __init__(self, termination: Termination, config: Any) -> None:
        self.scope = trio.CancelScope()
        self.idle = False
        self._until = math.inf
        self._termination = termination
        self._config = config

    @property
    def over(self) -> bool:
        """It is, and has been too long. The scope may have been cancelled for an idleness before this one."""
        late = trio.current_time() >= self._until or self._termination.is_set()
        return self.idle and late

    def renew(self) -> None:
        """Begin again with another scope: this one is over, and the connection has turned out to be in use."""
        idle = self.idle
        self.end()
        self.scope = trio.CancelScope()
        if idle:  # what came may be no request
            self.begin()

    def end(self) -> None:
        """It is idle no more."""
        self.idle = False
        self._termination.idle.discard(self.scope)
        self.scope.deadline = math.inf

    def begin(self) -> None:
        """The connection is idle from now on."""
        self.idle = True
        self._termination.idle.add(self.scope)
        # At the server's end protocols close what they have answered. They may still be writing it.
        patience_s = _LAST_S if self._termination.is_set() else self._config.keep_alive_timeout
        self.scope.deadline = self._until = trio.current_time() + patience_s
