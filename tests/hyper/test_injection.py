"""What a client names itself reaches the engine as metadata only when it is sane; nothing of it becomes metadata of its own."""

import re

import pytest
import trio

from ark_trio.rpc.client import ArkChannel
from tests.support.fake_engine import MODEL, open_fake_decoder, saying
from tests.support.h2_front import connect
from tests.support.stack import Stack, open_stack
from tests.support.wire import CHAT, chat, post

TRAPS = {
    "new-line": b"a\r\nx-injected: 1",
    "bare-lf": b"a\nx-injected: 1",
    "bare-cr": b"a\rx-injected: 1",
    "nul": b"a\x00x-injected: 1",
    "tab": b"a\tb",
    "utf-8": "é".encode(),
    "not-utf-8": b"\xff\xfe",
    "long": b"a" * 5000,
    "space": b"grpc-status: 0",
    "empty": b"",
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The metadata of every call to the engine."""
    found: list[tuple[str, str]] = []
    plain = ArkChannel.stream_known

    async def spy(self, letter, sink, *, metadata=()):
        found.extend(metadata)
        await plain(self, letter, sink, metadata=metadata)

    monkeypatch.setattr(ArkChannel, "stream_known", spy)
    return found


@pytest.mark.parametrize("name", ["x-request-id", "traceparent", "tracestate", "x-other"])
@pytest.mark.parametrize("ask", ["1.1", "2"])
async def test_headers_inject_nothing_towards_the_engine(
    name: str, ask: str, seen: list[tuple[str, str]], autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            for trap in TRAPS.values():
                await (ask_http1 if ask == "1.1" else ask_http2)(stack, name.encode(), trap)
            await stack.assert_as_before()
    assert {key for key, _ in seen} == {"x-request-id"}
    # A client's id that is not sane is replaced by one of ours; "a" is what a line break leaves of one in HTTP/1.1.
    assert all(re.fullmatch(r"a|[0-9a-f]{32}", value) for _, value in seen)
    assert len(seen) == len(decoder.engine.calls)


async def ask_http1(stack: Stack, name: bytes, value: bytes) -> None:
    request = post(chat("hi", model=MODEL), headers="x-mark: 1\r\n")
    client = await stack.connect()
    await client.send(request.replace(b"x-mark: 1", name + b": " + value))
    with trio.move_on_after(1):
        await client.read_to_end()
    await client.stream.aclose()


async def ask_http2(stack: Stack, name: bytes, value: bytes) -> None:
    async with connect(stack) as front:
        number = front.h2.get_next_available_stream_id()
        fields = {b":method": b"POST", b":scheme": b"http", b":path": CHAT.encode()}
        front.h2.send_headers(number, [*fields.items(), (b":authority", b"x"), (name, value)])
        front.h2.send_data(number, chat("hi", model=MODEL), end_stream=True)
        await front.flush()
        with trio.move_on_after(1):
            await front.closed.wait()
