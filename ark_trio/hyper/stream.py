"""hypercorn's request, which hears of its connection's end whatever becomes of the task that tells it.

hypercorn 0.18 marks the request closed, then tells it `http.disconnect`. Cancelled in between, as happens when the client leaves
while we close, it never tells: the request waits for its body, or for the engine, on behalf of nobody.
"""

import hypercorn.protocol.h2
import hypercorn.protocol.h11
import trio
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.http_stream import HTTPStream

_TELL_S = 1.0
"""Nothing holds the message up but a request that takes none."""


class HearingStream(HTTPStream):
    """hypercorn's; see the module's docstring."""

    async def handle(self, event: Event) -> None:
        """Take what the connection brings."""
        if isinstance(event, StreamClosed):
            with trio.move_on_after(_TELL_S, shield=True):
                await super().handle(event)
        else:
            await super().handle(event)


# hypercorn makes it by these names, for HTTP/1.1 and for HTTP/2.
setattr(hypercorn.protocol.h11, "HTTPStream", HearingStream)  # noqa: B010 (not a name that it exports)
setattr(hypercorn.protocol.h2, "HTTPStream", HearingStream)  # noqa: B010 (not a name that it exports)
