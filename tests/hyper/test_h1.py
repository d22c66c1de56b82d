"""What HTTP/1.1 the gateway takes, and what it answers to the rest: an error in OpenAI's shape, and the connection's end."""

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import ConnectionState

from ark_trio.config import Limits
from ark_trio.hyper.config import HyperConfig, set_limits
from ark_trio.hyper.h1 import CarefulH11Protocol
from ark_trio.hyper.idle import EndingContext
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.stack import RawClient, Stack, open_stack
from tests.support.wire import chat, post

GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
SMUGGLED = b"GET /livez HTTP/1.1\r\nhost: smuggled\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    "length-and-coding": (
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    "coding-and-length": (
        POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    "two-lengths": (POST + b"content-length: 0\r\ncontent-length: 5\r\n\r\nabcde", 400),
    "the-same-length-twice": (POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
    "a-list-of-lengths": (POST + b"content-length: 2, 2\r\n\r\n{}", 400),
    "length-with-a-sign": (POST + b"content-length: +2\r\n\r\n{}", 400),
    "length-in-hex": (POST + b"content-length: 0x2\r\n\r\n{}", 400),
    "length-in-other-digits": (POST + "content-length: ²\r\n\r\n{}".encode(), 400),
    "length-of-more-than-20-digits": (
        POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n{}",
        400,
    ),
    "two-codings": (POST + b"transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n", 400),
    "a-list-of-codings": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n", 400),
    "unknown-coding": (POST + b"transfer-encoding: xchunked\r\n\r\n", 501),
    "coding-behind-a-vertical-tab": (POST + b"transfer-encoding: \x0bchunked\r\n\r\n", 400),
    "space-before-the-colon": (POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "coding-under-http-1.0": (
        b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "folded-header": (GET + b"x-a: 1\r\n folded\r\n\r\n", 400),
    "folded-coding": (POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "bare-lf-everywhere": (b"GET /livez HTTP/1.1\nhost: x\n\n", 400),
    "bare-lf-in-the-head": (b"GET /livez HTTP/1.1\r\nhost: x\nx-a: 1\r\n\r\n", 400),
    "bare-lf-at-its-end": (GET + b"\n", 400),
    "bare-cr-in-a-value": (GET + b"x-a: 1\rx-b: 2\r\n\r\n", 400),
    "nul-in-a-value": (GET + b"x-a: 1\x002\r\n\r\n", 400),
    "no-host": (b"GET /livez HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (GET + b"host: y\r\n\r\n", 400),
    "no-http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "http-0.9": (b"GET /livez\r\n\r\n", 400),
    "http-3.7": (b"GET /livez HTTP/3.7\r\nhost: x\r\n\r\n", 400),
    "non-ascii-target": (b"GET /caf\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "line-before-the-request": (b"\r\n" + GET + b"\r\n", 400),
    "target-without-slash": (b"GET livez HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "target-of-options": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "connect": (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "websocket": (
        GET
        + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        + b"sec-websocket-key: bKdPyn3u98cTfZJSh4TNeQ==\r\n\r\nx",
        400,
    ),
    "long-request-line": (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "request-line-without-end": (b"GET /" + b"a" * 8200, 414),
    "many-headers": (GET + b"x-a: 1\r\n" * 120 + b"\r\n", 431),
    "large-header": (GET + b"x-a: " + b"1" * 33_000 + b"\r\n\r\n", 431),
    "header-without-end": (GET + b"x-a: " + b"1" * 33_000, 431),
    "large-head": (GET + (b"x-a: " + b"1" * 1000 + b"\r\n") * 40 + b"\r\n", 431),
    "chunk-extension": (
        POST + b"transfer-encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n",
        400,
    ),
    "chunk-extension-with-lf": (
        POST + b"transfer-encoding: chunked\r\n\r\n2;\n{}\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    "chunk-size-not-hex": (POST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
    "chunk-size-negative": (POST + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}", 400),
    "chunk-size-with-0x": (POST + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}", 400),
    "chunk-size-huge": (POST + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", 400),
    "chunk-size-without-end": (POST + b"transfer-encoding: chunked\r\n\r\n" + b"0" * 40, 400),
    "chunk-longer-than-its-size": (
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}}}\r\n0\r\n\r\n",
        400,
    ),
    "bare-lf-behind-the-last-chunk": (
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\n" + SMUGGLED,
        400,
    ),
    "bare-lf-in-a-trailer": (
        POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: 1\n\r\n" + SMUGGLED,
        400,
    ),
}


async def refused(client: RawClient, sent: bytes) -> None:
    """Send it, and read to the connection's end."""
    await client.send(sent)
    with trio.fail_after(2):
        await client.read_to_end()
    await client.stream.aclose()


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_plain_http_is_refused(
    sent: bytes, status: int, autojump_clock: trio.testing.MockClock
):
    """With one answer: what stands behind it is never taken for a request."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await refused(client, sent)
            assert bytes(client.received).count(b"HTTP/1.1 ") == 1
            assert client.status == status, client.received
            head, _, body = bytes(client.received).partition(b"\r\n\r\n")
            assert b"connection: close" in head.lower()
            error = orjson.loads(body)["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
            (logged,) = [line for line in stack.log if line["event"] == "request_refused"]
            assert b"x-request-id: " + logged["request_id"].encode() in head
            assert decoder.engine.calls == []
            await stack.assert_as_before()


async def test_it_is_refused_however_slowly_it_comes(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            short = {name: case for name, case in REFUSED.items() if len(case[0]) < 300}
            for name, (sent, status) in short.items():
                client = await stack.connect()
                await trickle(client, sent)
                assert client.status == status, name
                assert bytes(client.received).count(b"HTTP/1.1 ") == 1, name
            assert len(short) > 40
            assert decoder.engine.calls == []
            await stack.assert_as_before()


async def trickle(client: RawClient, sent: bytes) -> None:
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            for i in range(len(sent)):
                try:
                    await client.send(sent[i : i + 1])
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.001)

        nursery.start_soon(write)
        with trio.fail_after(5):
            await client.read_to_end()
        await client.stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_refusal_says_what_was_wrong(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            for name, words in {
                "length-and-coding": "Content-Length or Transfer-Encoding",
                "unknown-coding": "Transfer-Encoding must be chunked",
                "folded-header": "goes on over several lines",
                "bare-lf-everywhere": "CR LF",
                "chunk-extension": "chunks",
                "many-headers": "too many headers",
                "websocket": "server-sent events",
            }.items():
                client = await stack.connect()
                await refused(client, REFUSED[name][0])
                assert client.error is not None
                assert words in client.error["message"]


async def answered(stack: Stack, sent: bytes) -> RawClient:
    client = await stack.connect()
    await client.send(sent)
    await client.read_until(b"\r\n\r\n")
    await client.stream.aclose()
    return client


@pytest.mark.parametrize(
    "more",
    [
        b"x-empty:\r\n",
        b"x-latin: caf\xe9\r\n",
        b"accept:\t*/*  \r\n",
        b"x-a: 1\r\n" * 90,
        b"content-length: 0\r\n",
        b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    ],
    ids=["empty", "latin-1", "white-space", "ninety", "length-0", "h2c-is-not-taken-up"],
)
async def test_what_is_plain_http_is_served(more: bytes, autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await answered(stack, GET + more + b"\r\n")
            assert client.status == 200


async def test_a_target_with_a_host_is_a_path(autojump_clock: trio.testing.MockClock):
    """So ask clients that take us for their proxy."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            for target in (b"http://x/livez", b"https://x:1/livez?a=1", b"http://x"):
                client = await answered(stack, b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % target)
                assert client.status == (404 if target == b"http://x" else 200)


async def test_a_chunked_body_is_served(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            body = chat("hi", model=MODEL)
            parts = b"".join(b"%X\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
            client = await stack.connect()
            head = POST + b"transfer-encoding: chunked\r\n\r\n"
            await client.send(head + parts + b"0\r\nx-trailer: 1\r\n\r\n")
            await client.read_until(b"[DONE]")
            assert client.status == 200
            await client.stream.aclose()


@pytest.mark.parametrize("sent", [b"G", GET, POST + b"content-length: 10\r\n"])
async def test_a_head_has_its_time_to_arrive(sent: bytes, autojump_clock: trio.testing.MockClock):
    """Slowloris: a byte every second does not lengthen it."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(head_s=10))) as stack:
            client = await stack.connect()
            began = trio.current_time()
            await client.send(sent)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, client)
                await client.read_to_end()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began == pytest.approx(10, abs=2.1)
            assert client.status == 408
            assert client.error is not None
            await client.stream.aclose()
            await stack.assert_as_before()


async def drip(client: RawClient) -> None:
    for _ in range(100):
        await trio.sleep(1)
        try:
            await client.send(b"x")
        except trio.BrokenResourceError:
            return


async def test_the_second_head_has_its_time_too(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a", gap_s=20)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(head_s=10))) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL)) + b"GET /li")
            await client.read_until(
                b"[DONE]"
            )  # what came behind did not end it, though it took 20 s
            await client.read_to_end()
            assert client.status == 408
            assert trio.current_time() == pytest.approx(30, abs=2.5)
            await client.stream.aclose()
            await stack.assert_as_before()


async def test_a_body_has_its_time_to_arrive(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(limits=Limits(body_s=10))) as stack:
            client = await stack.connect()
            await client.send(POST + b"content-length: 1000\r\n\r\n{")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip, client)
                await client.read_to_end()
                nursery.cancel_scope.cancel()
            assert trio.current_time() == pytest.approx(10, abs=2.1)
            assert client.status == 408
            await client.stream.aclose()
            await stack.assert_as_before()
            assert [end["outcome"] for end in stack.ends] == ["request_timeout"]


async def test_a_client_that_is_answered_while_it_sends_gets_its_answer(
    autojump_clock: trio.testing.MockClock,
):
    """Closing a socket that holds unread bytes would reset it, and lose the 413 on the way."""
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_body_bytes=10_000))) as stack:
            client = await stack.connect(receive_buffer=4096)
            await client.send(POST + b"content-length: 4000000\r\n\r\n")
            await client.send(b"x" * 4_000_000)  # all of it is taken
            await client.read_to_end()
            assert client.status == 413
            assert client.error is not None
            await client.stream.aclose()
            await stack.assert_as_before()


async def test_a_client_that_never_stops_sending_is_closed_all_the_same(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_body_bytes=10_000))) as stack:
            client = await stack.connect()
            await client.send(POST + b"content-length: 4000000000\r\n\r\n")
            with trio.fail_after(3), suppress(trio.BrokenResourceError):
                while True:
                    await client.send(b"x" * 1000)
                    await trio.sleep(0.01)
            await client.stream.aclose()
            await stack.assert_as_before()


async def test_a_body_that_will_be_refused_is_not_asked_for(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_body_bytes=10_000))) as stack:
            client = await stack.connect()
            await client.send(POST + b"content-length: 20000\r\nexpect: 100-continue\r\n\r\n")
            await client.read_to_end()
            assert b" 100 " not in client.received
            assert client.status == 413
            await client.stream.aclose()


async def test_a_connection_ends_after_its_requests(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_connection_requests=3))) as stack:
            client = await stack.connect()
            for count in range(1, 4):
                await client.send(GET + b"\r\n")
                await client.read_until(b'"ok"', count=count)
            await client.read_to_end()
            heads = bytes(client.received).lower().split(b"http/1.1 200")
            assert [b"connection: close" in head for head in heads[1:]] == [False, False, True]
            await client.stream.aclose()
            await stack.assert_as_before()


async def test_a_malformed_body_ends_its_request_by_name(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await refused(client, REFUSED["chunk-size-not-hex"][0])
            await stack.assert_as_before()
            assert [end["outcome"] for end in stack.ends] == ["invalid_request"]


async def test_a_head_that_is_whole_just_in_time_is_served():
    """Its timer has gone off already, and its task has not had its turn."""
    over = trio.Event()
    written: list[Event] = []
    begun: list[Any] = []

    async def wait(_seconds: float) -> None:
        await over.wait()

    async def write(event: Event) -> None:
        written.append(event)
        await trio.lowlevel.checkpoint()

    async def spawn_app(_app: Any, _config: Any, scope: Any, _send: Any) -> Any:
        begun.append(scope)
        return put

    async def put(_message: Any) -> None:
        await trio.lowlevel.checkpoint()

    context = EndingContext()
    context.sleep = wait  # type: ignore[method-assign, assignment]  # virtual
    config = HyperConfig()
    set_limits(config, Limits())
    async with trio.open_nursery() as nursery:
        tasks = SimpleNamespace(_nursery=nursery, spawn_app=spawn_app)
        protocol = CarefulH11Protocol(
            None, config, context, tasks, ConnectionState({}), False, None, None, write
        )
        await protocol.handle(RawData(GET))
        await trio.testing.wait_all_tasks_blocked()
        over.set()
        await protocol.handle(RawData(b"\r\n"))
        await trio.testing.wait_all_tasks_blocked()
    assert [event for event in written if isinstance(event, RawData | Closed)] == []
    assert [scope["path"] for scope in begun] == ["/livez"]
