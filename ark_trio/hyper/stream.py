"""hypercorn's request, which hears of its connection's end whatever becomes of the task that tells it.

hypercorn 0.18 marks the request closed, then tells it `http.disconnect`. Cancelled in between, as happens when the client leaves
while we close, it never tells: the request waits for its body, or for the engine, on behalf of nobody.
"""

import trio
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext

_TELL_S = 1.0
"""Nothing holds the message up but a request that takes none."""


class HearingStream(HTTPStream):
    """hypercorn's; see the module's docstring."""

    async def handle(self, event: Event) -> None:
        """Take what the connection brings."""
        if isinstance(event, StreamClosed) and isinstance(self.context, WorkerContext):
            with trio.move_on_after(_TELL_S, shield=True):
                await super().handle(event)
        else:
            await super().handle(event)
