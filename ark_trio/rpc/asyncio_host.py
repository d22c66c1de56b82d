"""Our Trio application under an asyncio ASGI server, such as hypercorn's default worker.

Trio can't be a guest of that loop: trio_asyncio refuses "run() from inside a run()". So Trio runs in
one thread of its own, begun by the lifespan scope and ended with it. Each scope is a Trio task there;
its `receive` and `send` run on the server's loop and are awaited across the threads. Cancellation
crosses both ways.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import trio
from attrs import define, field

Serve = Callable[[Any, Any, Any], Awaitable[None]]


def leave_asyncio_plain() -> None:
    """Have asyncio make its own loops outside Trio again, in this thread.

    Once imported, trio_asyncio makes every new asyncio loop one that runs on a Trio of its own. An
    asyncio server imports us first and makes its loop then.
    """
    if not in_trio():
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())


def in_trio() -> bool:
    """Whether the caller runs in a Trio task."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


class AsyncioHost:
    """Serves ASGI scopes that come from an asyncio server by `serve`, which is Trio-flavoured."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._portal: _Portal | None = None

    @property
    def hosting(self) -> bool:
        """An asyncio server has begun its lifespan here."""
        return self._portal is not None

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope. asyncio-flavoured."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._portal is not None:
            await self._portal.run(self._serve, scope, receive, send)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the lifespan scope, whose life is the thread's. asyncio-flavoured."""
        held: list[Any] = []

        async def send_but_the_last(message: Any) -> None:
            # hypercorn cancels this task as soon as it hears of the end, so the thread ends first.
            if message["type"] == "lifespan.shutdown.complete":
                held.append(message)
            else:
                await send(message)

        async with _open_portal() as portal:
            self._portal = portal
            try:
                await portal.run(self._serve, scope, receive, send_but_the_last)
            finally:
                self._portal = None
        for message in held:
            await send(message)


@contextlib.asynccontextmanager
async def _open_portal() -> AsyncIterator["_Portal"]:
    """Run Trio in a thread for as long as the block lasts. asyncio-flavoured."""
    portal = _Portal(loop=asyncio.get_running_loop())
    thread = threading.Thread(target=trio.run, args=(portal.host,), name="ark-trio")
    thread.start()
    await portal.opened.wait()
    try:
        yield portal
    finally:
        portal.token.run_sync_soon(portal.closing.set)
        await asyncio.to_thread(thread.join)  # noqa: ASYNC102 (asyncio: nothing shields; all was cancelled)


@define(kw_only=True, eq=False)
class _Portal:
    """The way between the server's loop and Trio's thread."""

    loop: asyncio.AbstractEventLoop
    opened: asyncio.Event = field(factory=asyncio.Event)
    closing: trio.Event = field(factory=trio.Event)
    token: trio.lowlevel.TrioToken = field(init=False)
    _nursery: trio.Nursery = field(init=False)

    async def host(self) -> None:
        """Hold the nursery of all scopes until the portal closes. Trio-flavoured; Trio's main task."""
        async with trio.open_nursery() as self._nursery:
            self.token = trio.lowlevel.current_trio_token()
            self.loop.call_soon_threadsafe(self.opened.set)
            await self.closing.wait()
            self._nursery.cancel_scope.cancel()

    async def run(self, serve: Serve, scope: Any, receive: Any, send: Any) -> None:
        """Run `serve` in Trio to its end; cancelled, cancel it and wait for it. asyncio-flavoured."""
        done: asyncio.Future[None] = self.loop.create_future()
        cancel_scope = trio.CancelScope()
        across = partial(self._await_asyncio, receive), partial(self._await_asyncio, send)
        task = partial(self._own_scope, partial(serve, scope, *across), cancel_scope, done)
        self.token.run_sync_soon(self._nursery.start_soon, task)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            self.token.run_sync_soon(cancel_scope.cancel)
            await asyncio.wait([done])  # noqa: ASYNC102 (asyncio; the Trio task is cancelled and ends)
            raise

    async def _own_scope(
        self,
        serve: Callable[[], Awaitable[None]],
        cancel_scope: trio.CancelScope,
        done: "asyncio.Future[None]",
    ) -> None:
        """Run one scope and tell the server's loop how it ended. Trio-flavoured."""
        error: Exception | None = None
        try:
            with cancel_scope:
                await serve()
        except Exception as raised:  # noqa: BLE001 (handed over to the server, which logs it)
            error = raised
        finally:
            self.loop.call_soon_threadsafe(_resolve, done, error)

    async def _await_asyncio(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Await the asyncio-flavoured `fn(*args)` on the server's loop. Trio-flavoured."""
        arrived = trio.Event()
        future = asyncio.run_coroutine_threadsafe(_coroutine(fn, *args), self.loop)
        future.add_done_callback(lambda _: self.token.run_sync_soon(arrived.set))
        try:
            await arrived.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        return future.result()


async def _coroutine(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Make a coroutine of any awaitable. asyncio-flavoured."""
    return await fn(*args)


def _resolve(done: "asyncio.Future[None]", error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
