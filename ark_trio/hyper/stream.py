"""hypercorn's request, which hears of its connection's end whatever becomes of the task that tells it.

hypercorn 0.18 marks the request closed, then tells it `http.disconnect`. Cancelled in between, as happens when the client leaves
while we close, it never tells: the request waits for its body, or for the engine, on behalf of nobody.
"""

from dataclasses import dataclass
from typing import Any

import trio
from hypercorn.protocol.events import Body, Event, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import suppress_body

_TELL_S = 1.0
"""Nothing holds the message up but a request that takes none."""


@dataclass(frozen=True)
class LastBody(Body):
    """A piece after which the end follows at once, so that both can be written together."""


class HearingStream(HTTPStream):
    """hypercorn's; see the module's docstring."""

    async def app_send(self, message: Any) -> None:
        """Take what the application has to say."""
        if message is not None and self._is_last_piece(message):
            await self.send(LastBody(stream_id=self.stream_id, data=message["body"]))
            message = {**message, "body": b""}
        await super().app_send(message)

    def _is_last_piece(self, message: Any) -> bool:
        return bool(
            self.state is ASGIHTTPState.RESPONSE
            and message["type"] == "http.response.body"
            and message.get("body")
            and not message.get("more_body", False)
            and not suppress_body(self.scope["method"], int(self.response["status"]))
        )

    async def handle(self, event: Event) -> None:
        """Take what the connection brings."""
        if isinstance(event, StreamClosed) and isinstance(self.context, WorkerContext):
            with trio.move_on_after(_TELL_S, shield=True):
                await super().handle(event)
        else:
            await super().handle(event)
