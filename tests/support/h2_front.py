"""A client that speaks HTTP/2 frame by frame, and goes on after GOAWAY."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from tests.support.fake_engine import MODEL
from tests.support.stack import Stack
from tests.support.wire import CHAT, chat


class Enduring(H2Connection):
    """h2's connection, which would take no more frames once GOAWAY has come."""

    on_goaway: Callable[[int], None]

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        self.on_goaway(int(frame.error_code))
        return [], []


@define(eq=False)
class H2Front:
    """A client that speaks HTTP/2 frame by frame."""

    stream: trio.SocketStream
    h2: H2Connection
    data: dict[int, bytes] = field(factory=dict)
    status: dict[int, int] = field(factory=dict)
    ended: dict[int, str] = field(factory=dict)
    """How each stream ended: done or reset."""
    codes: dict[int, int] = field(factory=dict)
    stalled: set[int] = field(factory=set)
    """Streams whose data is not acknowledged."""
    changed: trio.Event = field(factory=trio.Event)
    closed: trio.Event = field(factory=trio.Event)
    goaway: int | None = None
    """The code that the server said goodbye with."""
    _turn: trio.Lock = field(factory=trio.Lock)

    async def ask(self, *, stream: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "x")]
        self.h2.send_headers(number, [*headers, ("content-type", "application/json")])
        self.h2.send_data(number, chat("hi", model=MODEL, stream=stream), end_stream=True)
        await self.flush()
        return number

    async def reset(self, number: int) -> None:
        self.h2.reset_stream(number, ErrorCodes.CANCEL)
        await self.flush()

    async def until(self, number: int, text: bytes) -> None:
        while text not in self.data.get(number, b""):
            await self.changed.wait()

    async def until_ended(self, number: int) -> None:
        while number not in self.ended:
            await self.changed.wait()

    async def flush(self) -> None:
        async with self._turn:
            await self.stream.send_all(self.h2.data_to_send())

    async def send(self, data: bytes) -> None:
        """Send frames that h2 would not."""
        async with self._turn:
            await self.stream.send_all(data)

    async def read(self) -> None:
        """Read frames until the connection closes."""
        try:
            while data := await self.stream.receive_some(65536):
                for event in self.h2.receive_data(data):
                    self._on(event)
                await self.flush()
                self.changed.set()
                self.changed = trio.Event()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.closed.set()

    def on_goaway(self, code: int) -> None:
        self.goaway = code

    def _on(self, event: object) -> None:
        if isinstance(event, ResponseReceived):
            fields = {str(k, "ascii"): str(v, "ascii") for k, v in event.headers}
            self.status[event.stream_id] = int(fields[":status"])
        elif isinstance(event, DataReceived):
            number = event.stream_id
            self.data[number] = self.data.get(number, b"") + event.data
            size = event.flow_controlled_length
            if number in self.stalled:
                self.h2.increment_flow_control_window(size)  # the connection's, not the stream's
            else:
                self.h2.acknowledge_received_data(size, number)
        elif isinstance(event, StreamEnded):
            self.ended[event.stream_id] = "done"
        elif isinstance(event, StreamReset):
            self.ended[event.stream_id] = "reset"
            self.codes[event.stream_id] = int(event.error_code)


@asynccontextmanager
async def connect(stack: Stack) -> AsyncIterator[H2Front]:
    """Connect with prior knowledge."""
    raw = await stack.connect()
    h2 = Enduring(
        H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
    )
    front = H2Front(raw.stream, h2)
    h2.on_goaway = front.on_goaway
    front.h2.initiate_connection()
    await front.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(front.read)
        yield front
        await raw.stream.aclose()
        nursery.cancel_scope.cancel()


async def assert_reset_beside_a_stream(front: H2Front, *, method: bytes, path: bytes) -> None:
    """Send a request that can't be taken beside a stream: it is reset, the stream comes to its end."""
    running = await front.ask()
    bad = front.h2.get_next_available_stream_id()
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", path)]
    front.h2.send_headers(bad, [*fields, (b":authority", b"x")], end_stream=True)
    await front.flush()
    await front.until_ended(bad)
    assert front.ended[bad] == "reset"
    await front.until_ended(running)
    assert front.data[running].endswith(b"data: [DONE]\n\n")
