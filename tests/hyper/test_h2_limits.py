"""What one HTTP/2 client may ask of the gateway, and that others go on meanwhile."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
import trio
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ark_trio.config import Limits
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.h2_front import H2Front, connect
from tests.support.stack import RawClient, Stack, open_stack
from tests.support.wire import CHAT, chat, post

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
FIELDS = [(":method", "GET"), (":scheme", "http"), (":path", "/livez"), (":authority", "x")]


@asynccontextmanager
async def bystander(stack: Stack) -> AsyncIterator[RawClient]:
    """A stream of another client, which is whole at the block's end."""
    client = await stack.connect()
    await client.send(post(chat("hi", model=MODEL)))
    await client.read_until(b'"content":"a"')
    yield client
    await client.read_until(b"[DONE]")
    assert b'"finish_reason":"stop"' in client.received
    await client.stream.aclose()


async def get(front: H2Front, *more: tuple[str, str], path: str = "/livez") -> int:
    number = front.h2.get_next_available_stream_id()
    fields = [(k, path if k == ":path" else v) for k, v in FIELDS]
    front.h2.send_headers(number, [*fields, *more], end_stream=True)
    await front.flush()
    return int(number)


def put(front: H2Front) -> int:
    """A chat request that waits to be sent."""
    number = front.h2.get_next_available_stream_id()
    front.h2.send_headers(number, [(":method", "POST"), *FIELDS[1:2], (":path", CHAT), *FIELDS[3:]])
    front.h2.send_data(number, chat("hi", model=MODEL), end_stream=True)
    return int(number)


async def assert_calmed(front: H2Front, stack: Stack) -> None:
    with trio.fail_after(2):
        await front.closed.wait()
    # The reset that answers what is still being sent may overtake what was said last.
    assert front.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, None)
    assert [each["event"] for each in stack.log].count("http2_flood") == 1


async def test_rapid_resets_end_the_connection_and_no_other(
    autojump_clock: trio.testing.MockClock,
):
    """CVE-2023-44487: streams that are reset at once never count as open."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        limits = Limits(max_http2_resets_per_s=20)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with bystander(stack), connect(stack) as front:
                with suppress(*GONE):
                    for _ in range(1000):
                        await front.reset(await front.ask())
                await assert_calmed(front, stack)
                assert len(decoder.engine.calls) < 150
            await stack.assert_as_before()
            assert "http2_flood" in [each["event"] for each in stack.log]


async def test_resets_within_the_rate_are_nobodys_business(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(hang) as decoder:
        limits = Limits(max_http2_resets_per_s=20)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with connect(stack) as front:
                for _ in range(30):
                    for _ in range(18):
                        await front.reset(await front.ask())
                    await trio.sleep(1)
                number = await get(front)
                await front.until_ended(number)
                assert front.status[number] == 200


FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda _: PingFrame(0, b"12345678").serialize(),
    "ping-answer": lambda _: PingFrame(0, b"12345678", flags=["ACK"]).serialize(),
    "settings": lambda _: SettingsFrame(
        0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 65535}
    ).serialize(),
    "settings-answer": lambda _: SettingsFrame(0, flags=["ACK"]).serialize(),
    "priority": lambda stream: PriorityFrame(stream, depends_on=0, stream_weight=1).serialize(),
    "empty-data": lambda stream: DataFrame(stream, b"").serialize(),
    "padding": lambda stream: DataFrame(stream, b"", pad_length=9, flags=["PADDED"]).serialize(),
    "window": lambda _: WindowUpdateFrame(0, window_increment=1).serialize(),
    "window-of-a-stream": lambda stream: WindowUpdateFrame(stream, window_increment=1).serialize(),
    "unknown": lambda _: b"\0\0\1\xbe\0\0\0\0\0x",
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_floods_of_frames_end_the_connection_and_no_other(
    kind: str, autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                number = front.h2.get_next_available_stream_id()
                fields = [(":method", "POST"), *FIELDS[1:2], (":path", CHAT), *FIELDS[3:]]
                front.h2.send_headers(number, fields)
                await front.flush()
                flood = FLOODS[kind](number) * 500
                with suppress(*GONE):
                    for _ in range(40):
                        await front.send(flood)
                await assert_calmed(front, stack)
            await stack.assert_as_before()


@pytest.mark.parametrize("kind", ["headers", "reset"])
async def test_floods_on_a_stream_that_is_over_end_the_connection(
    kind: str, autojump_clock: trio.testing.MockClock
):
    """h2 answers each header block by a reset, and tells nobody."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                number = await front.ask()
                await front.reset(number)
                frames: dict[str, Frame] = {
                    "headers": HeadersFrame(number, b"", flags=["END_HEADERS"]),
                    "reset": RstStreamFrame(number, error_code=ErrorCodes.CANCEL),
                }
                with suppress(*GONE):
                    for _ in range(40):
                        await front.send(frames[kind].serialize() * 500)
                await assert_calmed(front, stack)
            await stack.assert_as_before()


@pytest.mark.parametrize("how", ["window-too-large", "no-path", "no-place"])
async def test_resets_that_a_client_provokes_are_its_own(
    how: str, autojump_clock: trio.testing.MockClock
):
    """CVE-2025-8671: requests that we are made to give up count no more as open than those that the client resets."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        limits = Limits(max_http2_resets_per_s=20, max_http2_streams=2)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with bystander(stack), connect(stack) as front:
                await front.until_ended(await get(front))
                front.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2**31 - 1
                front.h2.remote_settings.acknowledge()
                with suppress(*GONE):
                    for _ in range(1000):
                        if how == "no-path":
                            await get(front, path="nowhere")
                            continue
                        number = put(front)
                        await front.flush()
                        if how == "window-too-large":
                            update = WindowUpdateFrame(number, window_increment=2**31 - 1)
                            await front.send(update.serialize())
                await assert_calmed(front, stack)
                assert len(decoder.engine.calls) < 150
            await stack.assert_as_before()


async def test_windows_may_be_opened_for_all_that_was_sent(
    autojump_clock: trio.testing.MockClock,
):
    """As some clients do: both, for each frame."""
    async with open_fake_decoder(saying(*"ab" * 200)) as decoder:
        limits = Limits(max_http2_control_per_s=10)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with connect(stack) as front:
                for _ in range(3):
                    number = await front.ask()
                    while number not in front.ended:
                        await front.changed.wait()
                        if number not in front.ended and number in front.data:
                            updates = [
                                WindowUpdateFrame(s, window_increment=9) for s in (0, number)
                            ]
                            await front.send(b"".join(each.serialize() for each in updates))
                    assert front.data[number].endswith(b"data: [DONE]\n\n")
                assert front.goaway is None
            await stack.assert_as_before()


@pytest.mark.parametrize("kind", ["data", "headers", "unknown"])
async def test_a_frame_that_promises_too_much_ends_the_connection_before_it_has_come(
    kind: str, autojump_clock: trio.testing.MockClock
):
    """h2 gathers all 16 MiB before it looks at the length, for each connection."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                number = await front.ask()
                word = {"data": 0, "headers": 1, "unknown": 99}[kind]
                head = b"\xff\xff\xff" + bytes([word, 0]) + (number + 2).to_bytes(4, "big")
                await front.send(head)
                with trio.fail_after(2):
                    await front.closed.wait()
                assert front.goaway == ErrorCodes.FRAME_SIZE_ERROR
            await stack.assert_as_before()


async def test_a_header_block_of_many_frames_has_its_limit(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                piece = ContinuationFrame(1, b"x" * 16_000).serialize()
                with suppress(*GONE):
                    await front.send(HeadersFrame(1, b"x" * 16_000).serialize() + piece * 3)
                await assert_calmed(front, stack)
            await stack.assert_as_before()


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.PROTOCOL_ERROR])
async def test_a_client_that_says_goodbye_gets_what_it_waits_for(
    code: ErrorCodes, autojump_clock: trio.testing.MockClock
):
    """Go's and Netty's clients do so when they are closed gracefully. One that has seen an error waits for nothing."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                running = await front.ask()
                await front.until(running, b'"content":"a"')
                await front.send(GoAwayFrame(0, error_code=code).serialize())
                late = await front.ask()
                await front.closed.wait()
                whole = front.data[running].endswith(b"data: [DONE]\n\n")
                assert whole == (code == ErrorCodes.NO_ERROR)
                assert front.codes.get(late) == (ErrorCodes.REFUSED_STREAM if whole else None)
            await stack.assert_as_before()
            assert "connection_crashed" not in [each["event"] for each in stack.log]


async def test_a_goodbye_in_one_breath_with_a_request_is_no_refusal(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"ab", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                number = put(front)
                await front.send(front.h2.data_to_send() + GoAwayFrame(0).serialize())
                await front.closed.wait()
                assert front.data[number].endswith(b"data: [DONE]\n\n")
            await stack.assert_as_before()


async def test_a_client_that_says_goodbye_and_waits_for_nothing_is_closed(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                await front.until_ended(await get(front))
                await front.send(GoAwayFrame(0).serialize())
                with trio.fail_after(1):
                    await front.closed.wait()
            await stack.assert_as_before()


@pytest.mark.parametrize("kind", ["of-streams-to-come", "of-streams-that-are-over", "of-no-parent"])
async def test_priorities_change_nothing_and_are_not_kept(
    kind: str, autojump_clock: trio.testing.MockClock
):
    """RFC 9113, 5.3.2: they are deprecated. Each took a place in a tree of a thousand."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                await front.until_ended(await get(front))
                for stream in range(1, 4001, 2):
                    number = {"of-streams-that-are-over": 1}.get(kind, 100_001 + stream)
                    parent = {"of-no-parent": 90_001}.get(kind, 0)
                    word = PriorityFrame(number, depends_on=parent, stream_weight=9, exclusive=True)
                    await front.send(word.serialize())
                running = await front.ask()
                await front.until_ended(running)
                assert front.data[running].endswith(b"data: [DONE]\n\n")
                assert front.goaway is None
            await stack.assert_as_before()
            assert "connection_crashed" not in [each["event"] for each in stack.log]


async def test_a_client_that_floods_and_does_not_read_is_ended_too(
    autojump_clock: trio.testing.MockClock,
):
    """Each PING has an answer; they must not pile up."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(stalled_write_s=5))) as stack:
            client = await stack.connect(receive_buffer=2048)
            await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
            ping = PingFrame(0, b"12345678").serialize() * 1000
            sent = 0
            with trio.fail_after(60):
                with suppress(*GONE):
                    while True:
                        await client.send(ping)
                        sent += len(ping)
            assert sent < 20_000_000
            await client.stream.aclose()
            await stack.assert_as_before()


async def test_a_flood_of_continuations_ends_the_connection(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                head = HeadersFrame(1, front.h2.encoder.encode(FIELDS))
                await front.send(head.serialize())
                with suppress(*GONE):
                    for _ in range(10_000):
                        await front.send(ContinuationFrame(1, b"").serialize())
                with trio.fail_after(2):
                    await front.closed.wait()
            await stack.assert_as_before()


async def test_a_header_bomb_ends_the_connection(autojump_clock: trio.testing.MockClock):
    """A few bytes of HPACK that name the same 4,000 bytes again and again."""
    async with open_fake_decoder(saying(*"abcd", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                with suppress(*GONE):
                    for _ in range(100):
                        await get(front, *[("x-a", "1" * 4000)] * 1000)
                        await trio.sleep(0.01)
                assert front.goaway == ErrorCodes.ENHANCE_YOUR_CALM
            await stack.assert_as_before()


@pytest.mark.parametrize(
    ("more", "path", "status"),
    [
        ([(f"x-{i}", "1") for i in range(120)], "/livez", 431),
        ([], "/" + "a" * 9000, 414),
    ],
    ids=["many-headers", "long-path"],
)
async def test_a_head_over_its_limits_is_its_streams_own_business(
    more: list[tuple[str, str]], path: str, status: int, autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                running = await front.ask()
                number = await get(front, *more, path=path)
                await front.until_ended(number)
                assert front.status[number] == status
                assert orjson.loads(front.data[number])["error"]["type"] == "invalid_request_error"
                await front.until_ended(running)
                assert front.data[running].endswith(b"data: [DONE]\n\n")
            await stack.assert_as_before()


async def test_a_refusal_that_finds_no_window_resets_its_stream(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                front.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5})
                number = await get(front, path="/" + "a" * 9000)
                await front.until_ended(number)
                assert front.ended[number] == "reset"
            await stack.assert_as_before()


async def test_a_stream_too_many_is_its_own_business(autojump_clock: trio.testing.MockClock):
    """RFC 9113, 5.1.2: an error of the stream; hypercorn's h2 makes it one of the connection."""
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        limits = Limits(max_http2_streams=5)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with connect(stack) as front:
                # A client that has not seen our settings yet.
                numbers = [put(front) for _ in range(8)]
                await front.flush()
                for number in numbers:
                    await front.until_ended(number)
                assert [front.ended[n] for n in numbers] == ["done"] * 5 + ["reset"] * 3
                assert {front.codes[n] for n in numbers[5:]} == {ErrorCodes.REFUSED_STREAM}
                late = await front.ask()
                await front.until_ended(late)
                assert front.ended[late] == "done"
            await stack.assert_as_before()


async def test_a_connection_that_has_served_its_requests_says_goodbye(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        limits = Limits(max_connection_requests=3)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with connect(stack) as front:
                running = await front.ask()
                for _ in range(2):
                    await get(front)
                while front.goaway is None:
                    await front.changed.wait()
                late = await get(front)
                await front.until_ended(late)
                assert front.codes[late] == ErrorCodes.REFUSED_STREAM
                await front.until_ended(running)
                assert front.data[running].endswith(b"data: [DONE]\n\n")
                await front.closed.wait()
            await stack.assert_as_before()


@pytest.mark.parametrize("busy", [True, False])
async def test_a_drain_says_goodbye(busy: bool, autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying(*"abc", gap_s=5)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(settle_s=0))) as stack:
            async with connect(stack) as front:
                number = await (front.ask() if busy else get(front))
                await trio.sleep(1)
                await stack.signals.send(signal.SIGTERM)
                await trio.sleep(1)
                assert front.goaway == ErrorCodes.NO_ERROR
                await front.closed.wait()
                assert front.ended[number] == "done"
                if busy:
                    assert b'"finish_reason":"stop"' in front.data[number]
            with trio.fail_after(1):
                await stack.stopped.wait()


UNFIT: dict[str, Callable[[], list[tuple[bytes, bytes]]]] = {
    "connect": lambda: [(b":method", b"CONNECT"), (b":authority", b"x:443")],
    "websocket": lambda: [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"x"),
    ],
    "method-not-ascii": lambda: [(b":method", b"G\xc3\xa9T"), *_rest()],
    "empty-path": lambda: [(b":method", b"GET"), (b":path", b""), *_rest()[:1], *_rest()[2:]],
    "path-without-slash": lambda: [
        (b":method", b"GET"),
        (b":path", b"livez"),
        *_rest()[:1],
        *_rest()[2:],
    ],
    "new-line-in-a-value": lambda: [(b":method", b"GET"), *_rest(), (b"x-a", b"1\r\nx-b: 2")],
    "nul-in-a-value": lambda: [(b":method", b"GET"), *_rest(), (b"x-a", b"1\x002")],
    "upper-case-name": lambda: [(b":method", b"GET"), *_rest(), (b"X-A", b"1")],
    "connection-header": lambda: [(b":method", b"GET"), *_rest(), (b"connection", b"close")],
    "coding": lambda: [(b":method", b"POST"), *_rest(), (b"transfer-encoding", b"chunked")],
    "length-of-another-body": lambda: [
        (b":method", b"POST"),
        *_rest(),
        (b"content-length", b"5"),
    ],
}


def _rest() -> list[tuple[bytes, bytes]]:
    return [(b":scheme", b"http"), (b":path", b"/livez"), (b":authority", b"x")]


@pytest.mark.parametrize("fields", UNFIT.values(), ids=UNFIT)
async def test_what_is_not_a_request_begins_none_and_harms_no_other_client(
    fields: Callable[[], Any], autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying(*"abc", gap_s=0.5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with bystander(stack), connect(stack) as front:
                number = front.h2.get_next_available_stream_id()
                front.h2.send_headers(number, fields(), end_stream=True)
                await front.flush()
                with trio.move_on_after(1):
                    await front.closed.wait()
                assert 200 not in front.status.values()
                assert not [e for e in stack.log if e["event"] == "connection_crashed"]
            await stack.assert_as_before()
