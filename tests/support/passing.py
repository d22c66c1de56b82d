"""A TCP port that passes everything on to another, and tells what goes by."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def passing(to_port: int, came_back: Callable[[int], None]) -> AsyncIterator[int]:
    """Listen; the port is what the block gets. `came_back` hears how many bytes have come from `to_port` in all."""
    count = 0

    def tell(more: int) -> None:
        nonlocal count
        count += more
        came_back(count)

    async def serve(near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", to_port)
        except OSError:
            return
        async with far, trio.open_nursery() as both:
            both.start_soon(_copy, near, far, lambda _: None, both.cancel_scope)
            both.start_soon(_copy, far, near, tell, both.cancel_scope)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _copy(
    source: trio.SocketStream,
    target: trio.SocketStream,
    tell: Callable[[int], None],
    both: trio.CancelScope,
) -> None:
    try:
        async for piece in source:
            tell(len(piece))
            await target.send_all(piece)
    except trio.BrokenResourceError:
        pass  # either end has left, and so does the other
    both.cancel()
