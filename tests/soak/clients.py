"""Clients of every kind, good ones and bad ones. The good ones say what is wrong with what they got."""

import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import h11
import orjson
import trio
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.fuzz.fire import perform
from tests.fuzz.play import make_play
from tests.support.wire import CHAT, chat, post

PATIENCE_S = 60.0
"""The longest that any answer may take; the engine's own stalls are cut off by the gateway much earlier."""
MOST_TURNS = 10
"""Requests on one connection."""
REFUSALS = {429, 502, 503, 504}
"""What a good request may get while engines die."""
_RESET = struct.pack("ii", 1, 0)


@define(eq=False)
class Seen:
    """What the clients of one gateway have seen."""

    cuts_allowed: bool = False
    """Connections may break: its workers are killed."""
    outcomes: Counter[str] = field(factory=Counter)
    faults: list[str] = field(factory=list)

    def fault(self, what: str) -> None:
        """Note what a client must never see."""
        self.outcomes["FAULT"] += 1
        self.faults.append(what)

    def cut(self, what: str) -> None:
        """Note a connection that ended before its answer."""
        if self.cuts_allowed:
            self.outcomes["cut"] += 1
        else:
            self.fault(f"cut off: {what}")

    def answer(self, status: int, body: bytes, count: int) -> None:
        """Judge a whole answer to a request for a stream of `count` tokens."""
        if status in REFUSALS:
            self.outcomes[str(status)] += 1
        elif status != 200:
            self.fault(f"{status}: {body[:300]!r}")
        elif not body.endswith(b"data: [DONE]\n\n"):
            self.cut(f"without [DONE]: {body[-300:]!r}")
        elif b'data: {"error"' in body:
            self.outcomes["error frame"] += 1
        elif _tokens(body) != [str(number) for number in range(count)]:
            self.fault(f"tokens lost of {count}: {_tokens(body)[:50]}")
        else:
            self.outcomes["whole"] += 1


def _tokens(body: bytes) -> list[str]:
    """Return the words of a streamed answer."""
    text = ""
    for line in body.splitlines():
        if line.startswith(b'data: {"id"'):
            for choice in orjson.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
    return text.split()


def script(rng: Random) -> tuple[bytes, int]:
    """Return what to ask, and how many tokens that brings."""
    count = rng.choice((0, 1, 5, 30, 100))
    return chat(f"count={count} gap_s={rng.choice((0, 0.005, 0.02))}", stream=True), count


async def _http1_answer(stream: trio.SocketStream) -> tuple[int, bytes] | None:
    """Read one answer: its status and body. None: the connection broke."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                client.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return status, body
    return None


async def keeps_alive(port: int, rng: Random, seen: Seen) -> None:
    """Asks several times over one connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for turn in range(rng.choice((1, 1, 3, MOST_TURNS))):
            body, count = script(rng)
            try:
                await stream.send_all(post(body))
            except trio.BrokenResourceError:
                seen.cut("while sending")
                return
            found = None
            with trio.move_on_after(PATIENCE_S) as patience:
                found = await _http1_answer(stream)
            if patience.cancelled_caught:
                seen.fault(f"no end within {PATIENCE_S} s for request {turn} on a connection")
                return
            if found is None:
                seen.cut("no whole answer")
                return
            seen.answer(*found, count)


async def asks_for_the_whole(port: int, rng: Random, seen: Seen) -> None:
    """Asks without stream, or for what needs no engine."""
    asked, expected = rng.choice(
        (
            (post(chat("count=20 gap_s=0.005", stream=False)), {200, *REFUSALS}),
            (post(b'{"model":"echo","prompt":"a b"}', "/tokenize"), {200, *REFUSALS}),
            (post(chat("x", model="nobody")), {404, 503}),
            (post(b"{"), {400}),
            (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", {200}),
            (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", {404}),
            (b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", {200}),
        )
    )
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(asked)
        found = await _http1_answer(stream)
        if found is None:
            seen.cut(f"no whole answer to {asked[:40]!r}")
        elif found[0] not in expected:
            seen.fault(f"{found[0]} to {asked[:200]!r}: {found[1][:200]!r}")
        else:
            seen.outcomes["whole" if found[0] == 200 else str(found[0])] += 1


async def leaves(port: int, rng: Random, seen: Seen) -> None:
    """Leaves at any moment, in any way."""
    asked = post(chat("count=100000 gap_s=0.01", stream=rng.random() < 0.8))
    with (await trio.open_tcp_stream("127.0.0.1", port)).socket as sock, suppress(OSError):
        await sock.send(asked[: rng.choice((len(asked), rng.randrange(len(asked))))])
        with trio.move_on_after(rng.choice((0, 0.01, 0.1, 1))):
            while await sock.recv(65536):
                pass
        how = rng.choice(("close", "reset", "half-close"))
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif how == "half-close":
            sock.shutdown(socket.SHUT_WR)
            while await sock.recv(65536):
                pass
    seen.outcomes["left"] += 1


async def stalls(port: int, rng: Random, seen: Seen) -> None:
    """Reads nothing, and is dropped."""
    with trio.socket.socket() as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", port))
        await sock.send(post(chat("count=100000 size=4000 burst=8 gap_s=0.01")))
        await trio.sleep(rng.choice((1, 6)))
    seen.outcomes["stalled"] += 1


async def trickles(port: int, rng: Random, seen: Seen) -> None:
    """Sends its request in small pieces."""
    body, count = script(rng)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        asked = post(body)
        try:
            for at in range(0, len(asked), 20):
                await stream.send_all(asked[at : at + 20])
                await trio.sleep(0.005)
        except trio.BrokenResourceError:
            seen.cut("while trickling")
            return
        found = await _http1_answer(stream)
        if found is None:
            seen.cut("no whole answer after trickling")
        else:
            seen.answer(*found, count)


async def multiplexes(port: int, rng: Random, seen: Seen) -> None:
    """Asks over HTTP/2, several streams at once, and resets some."""
    h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
    h2.initiate_connection()
    wanted: dict[int, int] = {}
    for _ in range(rng.choice((1, 4, 16))):
        body, count = script(rng)
        number = h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "x")]
        h2.send_headers(number, [*fields, ("content-type", "application/json")])
        h2.send_data(number, body, end_stream=True)
        wanted[number] = count
    for number in rng.sample(sorted(wanted), len(wanted) // 4):
        del wanted[number]
        h2.reset_stream(number, ErrorCodes.CANCEL)
    front = _Front(h2, wanted, seen)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            while front.wanted and not front.away:
                await stream.send_all(h2.data_to_send())
                data = await stream.receive_some(65536)
                if not data:
                    break
                front.take(bytes(data))
        except (trio.BrokenResourceError, ProtocolError) as error:
            seen.cut(f"over HTTP/2: {error!r}")
            return
    if front.wanted:
        seen.cut(f"over HTTP/2: streams {sorted(front.wanted)} have no answer")


@define(eq=False)
class _Front:
    h2: H2Connection
    wanted: dict[int, int]
    """Streams that are not answered yet -> tokens asked for."""
    seen: Seen
    status: dict[int, int] = field(factory=dict)
    data: dict[int, bytes] = field(factory=dict)
    away: bool = False

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            number = getattr(event, "stream_id", None)
            if isinstance(event, ConnectionTerminated):
                self.away = True
            elif number not in self.wanted:
                continue
            elif isinstance(event, ResponseReceived):
                self.status[number] = _status(event)
            elif isinstance(event, DataReceived):
                self.data[number] = self.data.get(number, b"") + (event.data or b"")
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, number)
            elif isinstance(event, StreamEnded):
                count = self.wanted.pop(number)
                self.seen.answer(self.status[number], self.data.get(number, b""), count)
            elif isinstance(event, StreamReset):
                del self.wanted[number]
                self.seen.cut(f"an HTTP/2 stream: {event.error_code!r}")


def _status(event: ResponseReceived) -> int:
    return next(int(value) for key, value in event.headers or () if key in (":status", b":status"))


async def misbehaves(port: int, rng: Random, seen: Seen) -> None:
    """Sends what the fuzz would."""
    with trio.move_on_after(10):
        await perform(make_play(str(rng.random())), port, rng.randrange(10_000))
    seen.outcomes["misbehaved"] += 1


Client = Callable[[int, Random, Seen], Awaitable[None]]
CLIENTS: dict[Client, int] = {
    keeps_alive: 6,
    asks_for_the_whole: 4,
    leaves: 4,
    stalls: 1,
    trickles: 1,
    multiplexes: 3,
    misbehaves: 2,
}


async def behave(port: int, rng: Random, seen: Seen) -> None:
    """Be one client after another, for ever."""
    while True:
        await trio.lowlevel.checkpoint()
        client = rng.choices(list(CLIENTS), weights=list(CLIENTS.values()))[0]
        try:
            with trio.fail_after(PATIENCE_S * (MOST_TURNS if client is keeps_alive else 1)):
                await client(port, rng, seen)
        except trio.TooSlowError:
            seen.fault(f"no end in time for one who {client.__name__}")
        except OSError as error:
            seen.cut(f"connecting: {error!r}")
            await trio.sleep(0.1)
