"""The page that monitoring scrapes: GET /metrics, one answer a connection, few at once, each within a bound.

An HTTP server of its own, because an engine has no other: it speaks gRPC.
"""

import socket
from collections.abc import Awaitable, Callable

import h11
import structlog
import trio
from prometheus_client import CONTENT_TYPE_LATEST

from ark_trio.errors import ArkError

log = structlog.get_logger()

READERS = 4
"""Scrapes answered at once; the others wait in the kernel."""
ANSWER_S = 5.0
"""Time for a whole exchange."""
_BACKLOG = 16
_MAX_HEAD_BYTES = 16 << 10
_PAUSE_S = 0.1
_READ_BYTES = 4096

Tell = Callable[[], Awaitable[bytes]]
Answer = tuple[int, str, bytes]

_PLAIN = "text/plain; charset=utf-8"


async def serve_scrapes(listener: socket.socket, tell: Tell) -> None:
    """Answer scrapes on `listener`, a bound socket, with what `tell` says, until cancelled."""
    listener.listen(_BACKLOG)
    waiting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    free = trio.Semaphore(READERS)
    # The service's: a task a scraper, no more than `free` allows.
    async with waiting, trio.open_nursery() as scrapers:
        while True:
            await free.acquire()
            scrapers.start_soon(_answer, await _accepted(waiting), tell, free)


async def _accepted(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError as error:  # such as no descriptor left
            log.warning("scrape_not_accepted", reason=error.strerror)
            await trio.sleep(_PAUSE_S)


async def _answer(stream: trio.SocketStream, tell: Tell, free: trio.Semaphore) -> None:
    try:
        with trio.move_on_after(ANSWER_S):
            async with stream:
                await _exchange(stream, tell)
    except trio.BrokenResourceError:
        pass  # the scraper has left
    finally:
        free.release()


async def _exchange(stream: trio.SocketStream, tell: Tell) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
    request: h11.Request | None = None
    try:
        request = await _receive(stream, connection)
        if request is None:
            return
        answer = await _answered(request, tell)
    except h11.RemoteProtocolError as error:
        answer = (error.error_status_hint, _PLAIN, b"This is no HTTP/1.1 that is understood.\n")
    status, kind, body = answer
    headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
    if status == 405:  # noqa: PLR2004 (the status that must name what is allowed)
        headers.append(("allow", "GET, HEAD"))
    out = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    if request is None or request.method != b"HEAD":
        out += connection.send(h11.Data(data=body)) or b""
    await stream.send_all(out)
    await stream.send_eof()


async def _receive(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    """Return the head of the one request that is answered; None: the client has left without."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await stream.receive_some(_READ_BYTES))


async def _answered(request: h11.Request, tell: Tell) -> Answer:
    if request.target.partition(b"?")[0] != b"/metrics":
        return 404, _PLAIN, b"There is /metrics.\n"
    if request.method not in (b"GET", b"HEAD"):
        return 405, _PLAIN, b"It can be read only.\n"
    try:
        return 200, CONTENT_TYPE_LATEST, await tell()
    except ArkError:
        return 503, _PLAIN, b"The engine does not answer.\n"
    except Exception:
        # What is wrong with its numbers must not end an engine.
        log.exception("scrape_failed")
        return 500, _PLAIN, b"The numbers can't be told.\n"
