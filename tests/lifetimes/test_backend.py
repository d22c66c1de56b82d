"""An engine that fails in every way that an engine can, before and after its first message, streaming and not.

Each test is a cell: what the client gets, when the engine has seen its reset, how the one log line names it, and that nothing
is left.
"""

from typing import Any

import pytest
import trio
from attrs import evolve, frozen
from h2.errors import ErrorCodes

from ark_trio.config import GrpcSettings, Limits, Settings
from tests.support.fake_engine import MODEL, finish, text
from tests.support.stack import RawClient, Stack, deaf_address, open_stack
from tests.support.wire import chat, post
from tests.support.wire_engine import Act, WireCall, WireEngine, open_wire_engine

PROMPT_S = 0.1
LIMITS = Limits(first_token_s=20, between_tokens_s=7, connect_s=3, keep_alive_s=100)


async def begin(call: WireCall) -> None:
    """Say something."""
    await call.headers()
    await call.message(text("a"))
    call.begun = True
    await trio.sleep(0.01)  # or a reset would overtake it


async def silence(call: WireCall) -> None:
    await trio.sleep_forever()


async def headers_only(call: WireCall) -> None:
    await call.headers()
    await trio.sleep_forever()


async def end_without_finish(call: WireCall) -> None:
    await call.headers()
    await call.trailers(0)


async def garbage(call: WireCall) -> None:
    await call.headers()
    await call.raw(b"\xff\xff\xff not protobuf")
    await trio.sleep_forever()


async def too_large(call: WireCall) -> None:
    await call.headers()
    await call.raw(b"", prefix=b"\0" + (64 << 20).to_bytes(4, "big"))
    await trio.sleep_forever()


async def compressed(call: WireCall) -> None:
    await call.headers()
    await call.raw(b"xx", prefix=b"\1\0\0\0\2")
    await trio.sleep_forever()


async def unknown_choice(call: WireCall) -> None:
    await call.headers()
    await call.message(text("a", index=7))
    await trio.sleep_forever()


async def half_a_message(call: WireCall) -> None:
    await call.headers()
    await call.raw(b"12345", prefix=b"\0\0\0\0\x40")
    await call.trailers(0)


async def not_grpc(call: WireCall) -> None:
    call.peer.h2.send_headers(call.stream_id, [(":status", "404"), ("content-type", "text/html")])
    call.peer.h2.send_data(call.stream_id, b"<html>", end_stream=True)
    await call.peer.flush()


async def drop(call: WireCall) -> None:
    call.peer.drop()


async def bad_http2(call: WireCall) -> None:
    await call.peer.send(b"\0\0\x09\0\0\0\0\0\0 not a frame")
    await trio.sleep_forever()


async def refuse(call: WireCall) -> None:
    await call.reset(ErrorCodes.REFUSED_STREAM)


async def reset_cancel(call: WireCall) -> None:
    await call.reset(ErrorCodes.CANCEL)


async def reset_internal(call: WireCall) -> None:
    await call.reset(ErrorCodes.INTERNAL_ERROR)


async def go_away_and_leave(call: WireCall) -> None:
    await call.peer.goaway(last_stream_id=0)
    await trio.sleep_forever()


@frozen(kw_only=True)
class Fault:
    """What the engine does, and what that is to the client."""

    act: Act
    status: int
    outcome: str
    code: str | None = None
    resets: bool = True
    """The gateway has to reset the stream: the engine would go on."""
    after_s: float = 0.0
    """How long until the gateway gives up."""
    after: bool = True
    """It can happen after the first message too."""


def fault(act: Act, status: int, outcome: str, **more: Any) -> Fault:
    return Fault(act=act, status=status, outcome=outcome, **more)


FAULTS = {
    "silent": fault(
        silence, 504, "deadline_exceeded", code="first_token_timeout", after_s=20, after=False
    ),
    "headers-only": fault(
        headers_only, 504, "deadline_exceeded", code="first_token_timeout", after_s=20, after=False
    ),
    "stalls": fault(silence, 504, "deadline_exceeded", code="token_timeout", after_s=7),
    "ok-without-finish": fault(end_without_finish, 502, "bad_backend", resets=False),
    "garbage-protobuf": fault(garbage, 502, "bad_backend"),
    "over-the-limit": fault(too_large, 502, "bad_backend"),
    "compressed": fault(compressed, 502, "bad_backend"),
    "unknown-choice": fault(unknown_choice, 502, "bad_backend"),
    "half-a-message": fault(half_a_message, 502, "bad_backend", resets=False),
    "not-grpc": fault(not_grpc, 501, "not_implemented", resets=False, after=False),
    "connection-reset": fault(drop, 503, "unreachable", resets=False),
    "bad-http2": fault(bad_http2, 502, "bad_backend", resets=False),
    "refused-stream": fault(refuse, 503, "unavailable", resets=False),
    "reset-cancel": fault(reset_cancel, 502, "backend_cancelled", resets=False),
    "reset-internal": fault(reset_internal, 502, "bad_backend", resets=False),
    "goaway-0": fault(go_away_and_leave, 503, "unreachable", resets=False),
}

STATUSES = {
    1: (502, "backend_cancelled"),
    2: (500, "internal_error"),
    3: (400, "invalid_request"),
    4: (504, "deadline_exceeded"),
    5: (404, "not_found"),
    6: (409, "conflict"),
    7: (502, "bad_backend"),
    8: (429, "overloaded"),
    9: (400, "invalid_request"),
    10: (409, "conflict"),
    11: (400, "invalid_request"),
    12: (501, "not_implemented"),
    13: (500, "internal_error"),
    14: (503, "unavailable"),
    15: (500, "internal_error"),
    16: (502, "bad_backend"),
    99: (500, "internal_error"),
}


@frozen(kw_only=True)
class Asked:
    """A request on its way, in a stack with a scripted engine."""

    stack: Stack
    engine: WireEngine
    client: RawClient


async def ask(stack: Stack, *, stream: bool) -> RawClient:
    client = await stack.connect()
    await client.send(post(chat("hi", model=MODEL, stream=stream)))
    return client


async def answer_of(client: RawClient, *, stream_began: bool) -> None:
    """Read the whole answer."""
    await client.read_until(b"data: [DONE]\n\n" if stream_began else b'"error"')


def settings(engine: WireEngine) -> Settings:
    return Settings(decoders=(engine.address,), models=(MODEL,), limits=LIMITS)


BEFORE_AFTER = pytest.mark.parametrize("began", [False, True], ids=["before-first", "after-first"])
STREAMING = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "non-streaming"])


@STREAMING
@BEFORE_AFTER
@pytest.mark.parametrize("name", FAULTS)
async def test_backend(
    name: str, began: bool, stream: bool, autojump_clock: trio.testing.MockClock
):
    found = FAULTS[name]
    if name == "stalls" and not began:
        found = FAULTS["silent"]
    if began and not found.after:
        found = FAULTS["stalls"] if "only" in name or name == "silent" else FAULTS["reset-cancel"]

    async def act(call: WireCall) -> None:
        if began:
            await begin(call)
        await found.act(call)

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        started = trio.current_time()
        client = await ask(stack, stream=stream)
        await answer_of(client, stream_began=began and stream)
        took = trio.current_time() - started
        assert took == pytest.approx(found.after_s, abs=0.2)
        assert client.status == (200 if began and stream else found.status)
        assert client.error is not None
        assert set(client.error) == {"message", "type", "param", "code"}
        if found.code is not None:
            assert client.error["code"] == found.code
        assert b'"finish_reason":"stop"' not in client.received
        await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == [found.outcome]
        (call,) = engine.calls
        if found.resets:
            assert call.reset_at is not None
            assert call.reset_at - started - took < PROMPT_S
            assert call.reset_code in (ErrorCodes.CANCEL, ErrorCodes.NO_ERROR)


@STREAMING
@BEFORE_AFTER
@pytest.mark.parametrize("status", STATUSES)
async def test_backend_status(
    status: int, began: bool, stream: bool, autojump_clock: trio.testing.MockClock
):
    async def act(call: WireCall) -> None:
        if began:
            await begin(call)
            await call.trailers(status, "at /var/lib on 10.0.0.9")
        else:
            await call.only_trailers(status, "at /var/lib on 10.0.0.9")

    code, outcome = STATUSES[status]
    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        client = await ask(stack, stream=stream)
        await answer_of(client, stream_began=began and stream)
        assert client.status == (200 if began and stream else code)
        await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == [outcome]
        if code not in (400, 404, 409):
            assert b"10.0.0.9" not in client.received


@STREAMING
async def test_backend_refuses_connections(stream: bool, autojump_clock: trio.testing.MockClock):
    async with open_wire_engine(silence) as engine:
        config = settings(engine)
    async with open_stack(config) as stack:
        client = await ask(stack, stream=stream)
        await client.read_until(b'"error"')
        assert client.status == 503
        assert b"retry-after: 1" in bytes(client.received).lower()
        await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == ["unavailable"]


@STREAMING
async def test_backend_goes_silent_while_connecting(
    stream: bool, autojump_clock: trio.testing.MockClock
):
    """A decoder that was ready, whose host now swallows connections: the connect limit, by name."""
    address, crowd = deaf_address()
    async with open_wire_engine(silence) as engine, open_stack(settings(engine)) as stack:
        decoder = stack.gateway.fleet.decoders[0]
        assert decoder._channel is not None
        decoder._channel._grpc.close()
        decoder._channel._grpc._port = address.port
        started = trio.current_time()
        client = await ask(stack, stream=stream)
        await client.read_until(b'"error"')
        assert (client.status, client.error["code"]) == (503, "connect_timeout")  # type: ignore[index]
        assert trio.current_time() - started == pytest.approx(LIMITS.connect_s, abs=0.1)
        await client.stream.aclose()
        await trio.sleep(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == ["unreachable"]
    for sock in crowd:
        sock.close()


async def test_backend_accepts_and_says_no_http2(autojump_clock: trio.testing.MockClock):
    """A port that accepts and stays silent is no decoder: it is never ready, and stops nothing."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with open_wire_engine(silence) as engine:
        config = settings(engine)
        mute = type(engine.address)(host="127.0.0.1", port=port)
        async with open_stack(type(config)(decoders=(mute,), limits=LIMITS)) as stack:
            client = await ask(stack, stream=True)
            await client.read_until(b'"error"')
            assert client.status == 503
            await client.stream.aclose()
    await listeners[0].aclose()


async def test_backend_connection_resets_under_fifty_streams(
    autojump_clock: trio.testing.MockClock,
):
    async def act(call: WireCall) -> None:
        await begin(call)
        await trio.sleep_forever()

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        clients = [await ask(stack, stream=True) for _ in range(50)]
        for client in clients:
            await client.read_until(b'"content":"a"')
        (peer,) = engine.peers
        peer.drop()
        for client in clients:
            await client.read_until(b"data: [DONE]\n\n")
            assert client.error is not None
            await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == ["unreachable"] * 50


async def test_backend_goes_away_and_finishes_what_it_has(autojump_clock: trio.testing.MockClock):
    """GOAWAY asks for no new streams: those that run end well, the next takes a new connection."""

    async def act(call: WireCall) -> None:
        await begin(call)
        if call.stream_id > 1 and len(engine.calls) == 1:
            await call.peer.goaway(last_stream_id=2**31 - 1)
            await call.peer.goaway(last_stream_id=call.stream_id)
            await trio.sleep(5)
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        first = await ask(stack, stream=True)
        await first.read_until(b'"content":"a"')
        await trio.sleep(0.05)
        second = await ask(stack, stream=True)
        await second.read_until(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in second.received
        assert len(engine.peers) == 2
        await first.read_until(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in first.received
        await trio.sleep(0.1)
        assert len(engine.peers) == 1  # the old connection was closed with its last stream
        await first.stream.aclose()
        await second.stream.aclose()
        assert [end["outcome"] for end in stack.ends] == ["completed"] * 2


async def test_backend_bursts_ten_thousand_messages(autojump_clock: trio.testing.MockClock):
    async def act(call: WireCall) -> None:
        await call.headers()
        for _ in range(10_000):
            await call.message(text("x"))
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        client = await ask(stack, stream=True)
        await client.read_until(b"data: [DONE]\n\n")
        assert client.received.count(b'"content":"x"') == 10_000
        await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)
        assert [end["outcome"] for end in stack.ends] == ["completed"]


async def test_backend_with_few_streams_a_connection_gets_several(
    autojump_clock: trio.testing.MockClock,
):
    async def act(call: WireCall) -> None:
        await begin(call)
        await trio.sleep(10)
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act, max_streams=4) as engine:
        async with open_stack(settings(engine)) as stack:
            clients = [await ask(stack, stream=True) for _ in range(12)]
            for client in clients:
                await client.read_until(b'"content":"a"')
            assert len(engine.peers) == 3
            assert trio.current_time() < 1
            for client in clients:
                await client.read_until(b"data: [DONE]\n\n")
                await client.stream.aclose()


async def test_backend_without_a_free_stream_is_waited_for_within_a_bound(
    autojump_clock: trio.testing.MockClock,
):
    async def act(call: WireCall) -> None:
        await begin(call)
        await trio.sleep(1 if call is engine.calls[0] else 6)
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act, max_streams=1) as engine:
        async with open_stack(settings(engine)) as stack:
            running = [await ask(stack, stream=True) for _ in range(8)]
            for client in running:
                await client.read_until(b'"content":"a"')
            waits, fails = await ask(stack, stream=True), await ask(stack, stream=True)
            await waits.read_until(b'"content":"a"')  # the first stream ended after a second
            await fails.read_until(b'"error"')
            assert (fails.status, fails.error["code"]) == (429, "stream_limit")  # type: ignore[index]
            assert trio.current_time() == pytest.approx(LIMITS.connect_s, abs=0.5)
            for client in (*running, waits, fails):
                await client.stream.aclose()


async def test_backend_streams_that_nobody_reads_hold_up_no_other(
    autojump_clock: trio.testing.MockClock,
):
    """However many: their sum is far over the connection's window."""

    async def act(call: WireCall) -> None:
        if len(engine.calls) <= 40:
            await call.headers()
            while True:
                await call.message(text("x" * 8000))
        await begin(call)
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act) as engine:
        small = GrpcSettings(stream_window_bytes=1 << 17, connection_window_bytes=1 << 20)
        config = evolve(settings(engine), grpc=small)
        async with open_stack(config) as stack:
            stalled = [await stack.connect(receive_buffer=2048) for _ in range(40)]
            for client in stalled:
                await client.send(post(chat("hi", model=MODEL)))
            await trio.sleep(1)
            live = await ask(stack, stream=True)
            await live.read_until(b"data: [DONE]\n\n")
            assert trio.current_time() < 3
            for client in (*stalled, live):
                await client.stream.aclose()


async def test_backend_ends_a_stream_without_a_status(autojump_clock: trio.testing.MockClock):
    """END_STREAM without trailers: no status will come, and nobody waits for one."""

    async def act(call: WireCall) -> None:
        await begin(call)
        await call.message(finish())
        call.peer.h2.end_stream(call.stream_id)
        await call.peer.flush()

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        client = await ask(stack, stream=True)
        await client.read_until(b"data: [DONE]\n\n")
        assert trio.current_time() < 1
        assert client.error is not None
        await client.stream.aclose()
        await stack.assert_as_before(PROMPT_S)


async def test_backend_goes_away_again_and_again(autojump_clock: trio.testing.MockClock):
    """Connections that finish what they have don't count against the limit of those that take more."""

    async def act(call: WireCall) -> None:
        await begin(call)
        await call.peer.goaway(last_stream_id=2**31 - 1)
        await trio.sleep(5)
        await call.message(finish())
        await call.trailers(0)

    async with open_wire_engine(act) as engine, open_stack(settings(engine)) as stack:
        clients = []
        for _ in range(12):
            clients.append(await ask(stack, stream=True))
            await clients[-1].read_until(b'"content":"a"')
            await trio.sleep(0.01)
        for client in clients:
            await client.read_until(b"data: [DONE]\n\n")
            assert b'"finish_reason":"stop"' in client.received
            await client.stream.aclose()
