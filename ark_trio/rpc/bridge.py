"""The asyncio loop inside Trio, and the only way across.

*Flavour*: a Trio-flavoured coroutine may await Trio's primitives only, an asyncio-flavoured one asyncio's only. `Bridge.run`
takes an asyncio-flavoured function and is itself Trio-flavoured; one crossing costs about 50 µs, so connecting crosses, and no
call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Any, TypeVar

import structlog
import trio_asyncio
from attrs import frozen

log = structlog.get_logger()

T = TypeVar("T")


@frozen
class Bridge:
    """The process's asyncio loop. Tasks don't inherit it by context, so it is handed around explicitly."""

    loop: Any
    """trio_asyncio's event loop (untyped)."""
    context: Context
    """In which asyncio's tasks run."""

    async def run(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run the asyncio-flavoured `fn(*args)` to its end. Trio-flavoured.

        Cancelling the caller cancels `fn` and waits until it has ended, so nothing of it is left when this returns.
        """
        # Not in the caller's context: asyncio keeps a copy of it in every timer, and a connection's ping timer
        # would keep the request that happened to connect, body and all, for as long as the connection lives.
        task = self.context.run(self._begin, fn, args)
        result: T = await self.loop.run_aio_future(task)
        return result

    def _begin(self, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> Any:
        return self.loop.create_task(fn(*args))


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Open the asyncio loop for as long as the caller's block runs. Trio-flavoured.

    The caller must be a task that owns it for the life of the process. An exception on the asyncio side that no call
    awaits (a broken connection's callback) is logged and contained there: it must not stop the process.
    """
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log_contained)
        yield Bridge(loop, copy_context())


def _log_contained(_loop: Any, context: dict[str, Any]) -> None:
    log.warning(
        "asyncio_error_contained", reason=context.get("message"), exc_info=context.get("exception")
    )
