"""hypercorn's request, which knows which piece of an answer is its last."""

from dataclasses import dataclass
from typing import Any

from hypercorn.protocol.events import Body
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import suppress_body


@dataclass(frozen=True)
class LastBody(Body):
    """A piece after which the end follows at once, so that both can be written together."""


class EndingStream(HTTPStream):
    """hypercorn's; see the module's docstring."""

    async def app_send(self, message: Any) -> None:
        """Take what the application has to say."""
        if message is not None and self._is_last_piece(message):
            await self.send(LastBody(stream_id=self.stream_id, data=message["body"]))
            message = {**message, "body": b""}
        await super().app_send(message)
        if message is not None and message["type"] == "http.response.start":
            self.response["headers"] = []  # they are out, and a stream may last for minutes

    def _is_last_piece(self, message: Any) -> bool:
        return bool(
            self.state is ASGIHTTPState.RESPONSE
            and message["type"] == "http.response.body"
            and message.get("body")
            and not message.get("more_body", False)
            and not suppress_body(self.scope["method"], int(self.response["status"]))
        )
