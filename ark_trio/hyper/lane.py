"""The short way of a connection's plain requests: past h11, hypercorn's streams and the task that hands over to them.

What was read goes to the application in the turn in which it was read. What `plain.py` does not read, the lane does not take: it
is hypercorn's protocol's, which is made when it is first needed. Each request is wholly of one of the two ways, and the next may go
the other.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from time import time
from typing import Any, Final, Protocol
from urllib.parse import unquote

import h11
import trio
from hypercorn.trio.task_group import _handle
from hypercorn.utils import UnexpectedMessageError

from ark_trio.bell import Bell
from ark_trio.hyper import inbox
from ark_trio.hyper.inbox import Inbox
from ark_trio.hyper.plain import (
    BODILESS,
    Field,
    Framing,
    PlainHead,
    read_head,
    spell_head,
    spell_piece,
)

_run_app: Final[Callable[..., Awaitable[None]]] = _handle
_THREADS: Final = (trio.to_thread.run_sync, trio.from_thread.run)
_FAILED: Final = 500
_DISCONNECT: Final = {"type": "http.disconnect"}


class Owner(Protocol):
    """The connection, as the lane sees it."""

    def note(self, *, idle: bool) -> None:
        """Whether a request runs."""

    async def write(self, data: bytes, *, last: bool) -> None:
        """Write a piece of an answer."""

    async def close(self) -> None:
        """Close it."""


class Lane:
    """One connection's."""

    __slots__ = (
        "_app",
        "_config",
        "_free",
        "_nursery",
        "_open",
        "_owner",
        "_request",
        "_scope",
        "_terminated",
        "over",
        "served",
    )

    def __init__(
        self,
        owner: Owner,
        app: Any,
        config: Any,
        scope: dict[str, Any],
        nursery: trio.Nursery,
        terminated: Callable[[], bool],
    ) -> None:
        self._owner = owner
        self._app = app
        self._config = config
        self._scope = scope
        """What the scopes of all requests have alike."""
        self._nursery = nursery
        self._terminated = terminated
        self._request: Request | None = None
        self._free = Bell()
        self.served = 0
        """Requests so far, of both ways."""
        self.over = False
        """The connection ends: what still comes is for nobody."""
        # What hypercorn's part does beside, for whoever has it so.
        self._open = not (
            config.accesslog
            or config.server_names
            or config.statsd_host
            or config.max_requests is not None
            or config.h11_pass_raw_headers
        )

    @property
    def busy(self) -> bool:
        """A request of the lane's runs."""
        return self._request is not None

    @property
    def uploading(self) -> bool:
        """Its body has not come in full."""
        return self._request is not None and self._request.body_left > 0

    def take(self, data: bytes) -> int:
        """Take what was read, at the beginning of `data`, and return how much of it; 0: nothing can be taken here or now."""
        if self.over:
            return len(data)  # behind the last answer nothing counts
        if self._request is not None:
            return self._request.take_body(data)
        # The last request of a connection says so, which is the other way's to say.
        if not self._open or self.served + 1 >= self._config.keep_alive_max_requests:
            return 0
        head = read_head(data, self._config.limits)
        if head is None:
            return 0
        self.served += 1
        request = self._request = Request(self, head)
        self._owner.note(idle=False)
        scope = self._scope_of(head, request.inbox)
        channels = request.inbox.receive, request.send
        self._nursery.start_soon(_run_app, self._app, self._config, scope, *channels, *_THREADS)
        if not head.body_bytes:
            request.inbox.offer({"type": "http.request", "body": b"", "more_body": False})
            return head.size
        return head.size + (request.take_body(data[head.size :]) if len(data) > head.size else 0)

    async def stirred(self) -> None:
        """Wait until `take` may take what it just did not."""
        if self._request is not None and self._request.body_left:
            await self._request.inbox.room()
        elif self._request is not None:
            await self._free.heard()

    def lose(self) -> None:
        """The connection is lost."""
        self.over = True
        if self._request is not None:
            self._request.leave()
            self._request = None
            self._free.ring()

    def _scope_of(self, head: PlainHead, inbox_: Inbox) -> dict[str, Any]:
        """Return the scope that hypercorn's streams would."""
        path, _, query = head.target.partition(b"?")
        text = path.decode("ascii")
        return {
            **self._scope,
            "method": head.method,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": head.fields,
            "state": {**self._scope["state"], inbox.KEY: inbox_},
            "extensions": {},
        }

    async def write(self, data: bytes, *, last: bool) -> None:
        """Write a piece of an answer."""
        await self._owner.write(data, last=last)

    def more_fields(self) -> list[Field]:
        """Return what the server adds to an answer's head."""
        return _server_fields(self._config, int(time()))

    async def end(self, request: "Request", *, closes: bool) -> None:
        """A request is over: the next may come, unless the connection ends with it."""
        if self._request is not request:
            return
        request.leave()
        closes = closes or bool(request.body_left) or self._terminated()
        if closes:
            self.over = True
            await self._owner.close()
        self._request = None
        if not closes:
            self._owner.note(idle=True)
        self._free.ring()


class Request:
    """One request of a lane, and its answer: ASGI's `send`, as hypercorn's streams heed it."""

    __slots__ = (
        "_bodiless",
        "_framing",
        "_gathered",
        "_lane",
        "_over",
        "_sent_bytes",
        "body_left",
        "inbox",
    )

    def __init__(self, lane: Lane, head: PlainHead) -> None:
        self._lane = lane
        self._framing: Framing | None = None
        self._gathered = b""
        """Of the answer: what is written together with what follows it at once."""
        self._over = False
        self._bodiless = False
        self._sent_bytes = 0
        self.body_left = head.body_bytes
        self.inbox = Inbox(lane._config.max_app_queue_size)

    def take_body(self, data: bytes) -> int:
        """Take what belongs to the body."""
        if not self.body_left or not self.inbox.has_room:
            return 0
        piece = data[: self.body_left]
        self.body_left -= len(piece)
        self.inbox.offer({"type": "http.request", "body": piece, "more_body": self.body_left > 0})
        return len(piece)

    def leave(self) -> None:
        """Nothing more comes from the client."""
        self.inbox.offer(_DISCONNECT)

    async def send(self, message: Any) -> None:
        """Do what the application says; None: it has no more to say.

        Raises:
            UnexpectedMessageError: that can't be said now.
            LocalProtocolError: a field can't be sent, or the body is not as long as was said.
        """
        if message is None:
            await self._leave_off()
        elif message["type"] == "http.response.start" and self._framing is None:
            self._begin(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self._framing and not self._over:
            await self._say(message.get("body", b""), last=not message.get("more_body", False))
        else:
            state = "over" if self._over else "begun" if self._framing else "new"
            raise UnexpectedMessageError(state, message["type"])  # type: ignore[arg-type]

    def _begin(self, status: int, fields: Any) -> None:
        self._gathered, self._framing = spell_head(status, fields, self._lane.more_fields())
        self._bodiless = status in BODILESS

    async def _say(self, data: bytes, *, last: bool) -> None:
        framing = self._framing
        assert framing is not None  # noqa: S101 (who calls has looked)
        data = b"" if self._bodiless else data
        if not framing.chunked and not self._bodiless:
            self._sent_bytes += len(data)
            if self._sent_bytes > framing.length or (last and self._sent_bytes < framing.length):
                raise h11.LocalProtocolError("The body is not as long as its head says.")
        if not data and not last:
            return
        gathered, self._gathered = self._gathered, b""
        self._over = last
        await self._lane.write(gathered + spell_piece(framing, data, last=last), last=last)
        if last:
            await self._lane.end(self, closes=framing.closes)

    async def _leave_off(self) -> None:
        """The application has ended. What it has begun and not ended can be told from a whole answer only by the connection's end."""
        if self._framing is None:
            self._begin(_FAILED, [(b"content-length", b"0"), (b"connection", b"close")])
            await self._say(b"", last=True)
        else:
            closes = self._framing.closes or not self._over
            self._over = True
            await self._lane.end(self, closes=closes)


@lru_cache(maxsize=8)
def _server_fields(config: Any, second: int) -> list[Field]:  # noqa: ARG001 (the date is of it)
    fields: list[Field] = config.response_headers("h11")
    return fields
