"""hypercorn's HTTP/1.1, strict in what it takes and plain in what it answers.

hypercorn 0.18 answers what is not HTTP with an empty body, waits for a head for ever, and upgrades to WebSocket and h2c: bytes
behind a WebSocket upgrade end its worker (pgjones/hypercorn#225), and CONNECT is taken for a request (pgjones/hypercorn#277).
Here a bad request gets an error in OpenAI's shape and the connection is closed; a head must arrive in `head_s`; WebSocket and
CONNECT are refused, and an offer to upgrade to h2c is not taken up, as the RFC allows: curl then goes on in HTTP/1.1.
"""

from typing import Any

import h11
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol

from ark_trio.config import Limits
from ark_trio.errors import ArkError, InvalidRequest, MethodNotAllowed, RequestTimeout
from ark_trio.hyper import fate
from ark_trio.hyper.careful import careful_connection, error_of
from ark_trio.hyper.refusal import spell_refusal
from ark_trio.hyper.stream import LastBody


class CarefulH11Protocol(H11Protocol):
    """hypercorn's protocol; see the module's docstring."""

    def __init__(self, app: Any, config: Any, context: Any, *rest: Any) -> None:
        super().__init__(app, config, context, *rest)
        self._limits: Limits = config.limits
        self._h11 = self.connection = careful_connection(self._limits)
        self._head_timer: Any = None
        self._timing = False
        self._body_is_welcome = True
        self._refused = False
        self._gathered = b""
        """Of an answer: what is written together with what follows it at once."""

    @property
    def between_requests(self) -> bool:
        """No request runs, and of the next nothing has come."""
        idle = self._h11.their_state is h11.IDLE and self._h11.our_state is h11.IDLE
        return idle and self.stream is None and not self._h11.trailing_data[0]

    async def handle(self, event: Event) -> None:
        """Take what was read, or the connection's end."""
        if isinstance(event, RawData) and self._refused:
            return
        if isinstance(event, RawData):
            self._h11.receive_data(event.data)
            await self._handle_events()
            await self._time_head()
        else:
            await self._stop_timer()
            await super().handle(event)

    async def _handle_events(self) -> None:
        while (
            self._h11.their_state is not h11.MUST_CLOSE
        ):  # what stands behind a last request is not looked at
            await self._say_continue()
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as fault:
                await self._refuse(error_of(fault))
                return
            if event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif isinstance(event, h11.Request):
                await self._stop_timer()
                await self.send(Updated(idle=False))
                error = self._not_served(event)
                if error is not None:
                    await self._refuse(error)
                    return
                self._body_is_welcome = self._announced_bytes(event) <= self._limits.max_body_bytes
                await self._create_stream(_with_path(event))
            elif self.stream is None or not isinstance(event, (h11.Data, h11.EndOfMessage)):
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            else:
                await self.stream.handle(EndBody(stream_id=STREAM_ID))

    def _not_served(self, request: h11.Request) -> ArkError | None:
        """Return why it is none of a kind that we answer, if so.

        Raises:
            H2ProtocolAssumedError: it is the beginning of HTTP/2.
        """
        if (request.method, request.target, request.http_version) == (b"PRI", b"*", b"2.0"):
            preface = b"PRI * HTTP/2.0\r\n\r\n"
            raise H2ProtocolAssumedError(preface + self._h11.trailing_data[0])
        if request.http_version not in (b"1.0", b"1.1"):
            return InvalidRequest("The HTTP version must be 1.0, 1.1 or 2.")
        if request.method == b"CONNECT" or request.method != request.method.upper():
            # To hypercorn `head` is HEAD, to h11 it is not: an answer with a length and without a body.
            return MethodNotAllowed("There is no such method here.")
        if not request.target.startswith((b"/", b"http://", b"https://")):
            return InvalidRequest("The request's target must be a path.")
        if any(k == b"upgrade" and v.lower() == b"websocket" for k, v in request.headers):
            return InvalidRequest("There is no WebSocket here; streams are server-sent events.")
        return None

    async def _say_continue(self) -> None:
        """Ask for the body that a client holds back, unless its size will have it refused."""
        if self._h11.they_are_waiting_for_100_continue and self._body_is_welcome:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    def _announced_bytes(self, request: h11.Request) -> int:
        return next((int(v) for k, v in request.headers if k == b"content-length"), 0)

    async def _refuse(self, error: ArkError) -> None:
        """Answer with `error` if nothing was answered yet, and close."""
        self._refused = True
        fate.note(self.connection_state, error.outcome)
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            bare = self._h11._request_method == b"HEAD"
            for event in _answer(error):
                if not (bare and isinstance(event, h11.Data)):
                    await self._send_h11_event(event)
        await self.send(Closed())

    async def stream_send(self, event: StreamEvent) -> None:
        """Do what the answer asks for. The last piece waits for the end, which is on its heels."""
        if isinstance(event, LastBody):
            self._gather(h11.Data(data=event.data))
        else:
            await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        """Write an event; a head waits for the first piece, which is on its heels. A write costs 30 µs, an event 3."""
        if self._gather(event) and not isinstance(event, h11.Response):
            data, self._gathered = self._gathered, b""
            await self.send(RawData(data=data))

    def _gather(self, event: Any) -> bool:
        """Spell an event. False: the client's side is broken already, and its connection about to be closed."""
        try:
            self._gathered += self._h11.send(event) or b""
        except h11.LocalProtocolError:
            if self._h11.their_state is not h11.ERROR:
                raise
            return False
        return True

    async def _time_head(self) -> None:
        """Give a head that has begun to arrive its time."""
        arriving = self._h11.their_state is h11.IDLE and bool(self._h11.trailing_data[0])
        if arriving and not self._timing:
            self._timing = True
            self._head_timer = self._head_timer or self.context.single_task_class()
            await self._head_timer.restart(self.task_group, self._await_head)

    async def _await_head(self) -> None:
        await self.context.sleep(self._limits.head_s)
        if (
            not self._timing
        ):  # it has arrived just now; whoever is about to stop us has not had its turn
            return
        self._timing = False  # this task ends itself; nobody is to stop it
        await self._refuse(RequestTimeout("The request's head did not arrive in time."))

    async def _stop_timer(self) -> None:
        if self._timing:
            self._timing = False
            await self._head_timer.stop()


def _with_path(request: h11.Request) -> h11.Request:
    """Return the request as it would be had its client not taken us for its proxy (RFC 9112, 3.2.2)."""
    if request.target.startswith(b"/"):
        return request
    _, _, rest = request.target.partition(b"//")
    return h11.Request(
        method=request.method,
        target=b"/" + rest.partition(b"/")[2],
        headers=request.headers.raw_items(),
        http_version=request.http_version,
    )


def refusal(error: ArkError) -> bytes:
    """Return the answer to a client that was not heard."""
    connection = h11.Connection(h11.SERVER)
    return b"".join(connection.send(event) or b"" for event in _answer(error))


def _answer(error: ArkError) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    fields, body = spell_refusal(error)
    head = h11.Response(status_code=error.status, headers=[*fields, (b"connection", b"close")])
    return head, h11.Data(data=body), h11.EndOfMessage()
