"""The server's promises to engines and callers, over real sockets on loopback."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest
from h2.settings import SettingCodes

from ark_trio.config import GrpcSettings
from ark_trio.errors import (
    ArkError,
    InternalError,
    InvalidRequest,
    Overloaded,
    PrefillerFailed,
    Unavailable,
)
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server import ArkServer, open_server
from ark_trio.rpc.server_connection import ServerOptions
from ark_trio.tls import serve_context
from ark_wire import ark_pb2
from ark_wire.inference import ControlType
from tests.support.certificates import Authority
from tests.support.fake_engine import open_fake_decoder, saying
from tests.support.h2_client import open_h2_client

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Script = Callable[[Request, Outbox], Awaitable[None]]

SOON_S = 1.0
"""Far above what any of this takes, far below every limit under test."""


@define(eq=False)
class Engine:
    script: Script
    ends: list[tuple[str, str]] = field(factory=list)
    running: int = 0

    async def stream(self, request: Request, outbox: Outbox) -> None:
        self.running += 1
        how = "failed"
        try:
            await self.script(request, outbox)
            how = "finished"
        except trio.Cancelled:
            how = "cancelled"
            raise
        finally:
            self.running -= 1
            self.ends.append((request.req_id, how))

    async def call(self, request: Request) -> Response:
        if request.req_id == "hang":
            await trio.sleep_forever()
        if request.req_id == "crash":
            raise RuntimeError("/etc/secret at 10.0.0.1")
        return Response(req_id=request.req_id)

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": int(control_type), "inputs": dict(inputs)}

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(SOON_S):
            while not condition():
                await trio.sleep(0.001)


@define(eq=False)
class Served:
    bridge: Bridge
    engine: Engine
    server: ArkServer

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[ArkChannel]:
        async with open_channel(self.bridge, "127.0.0.1", self.server.port) as channel:
            yield channel


@asynccontextmanager
async def serving(script: Script, options: ServerOptions | None = None) -> AsyncIterator[Served]:
    engine = Engine(script)
    async with (
        open_bridge() as bridge,
        open_server(bridge, engine, "127.0.0.1", 0, options) as server,
    ):
        yield Served(bridge, engine, server)


async def hang(request: Request, outbox: Outbox) -> None:
    await outbox.put(Response(req_id="first"))
    await trio.sleep_forever()


async def nothing(request: Request, outbox: Outbox) -> None:
    await trio.lowlevel.checkpoint()


def failing(error: Exception) -> Script:
    async def script(request: Request, outbox: Outbox) -> None:
        raise error

    return script


async def read(channel: ArkChannel, req_id: str = "r") -> tuple[list[Response], ArkError | None]:
    mailbox = Mailbox[Response]()
    messages: list[Response] = []
    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.stream, Request(req_id=req_id), mailbox)
        try:
            while batch := await mailbox.take():
                messages += batch
        except ArkError as error:
            failure = error
    return messages, failure


@pytest.mark.parametrize("messages_read", [0, 1])
async def test_a_reset_cancels_the_engines_task_at_once(messages_read: int):
    async with serving(hang) as served, open_h2_client(served.server.port) as client:
        stream = await client.call(Request(req_id="r"))
        if messages_read:
            await client.read()
        await served.engine.until(lambda: served.engine.running == 1)
        await client.reset(stream)
        await served.engine.until(lambda: served.engine.ends == [("r", "cancelled")])
        await served.engine.until(lambda: served.server.running == 0)


async def test_a_reset_while_backpressured_cancels_the_engines_task():
    async def script(request: Request, outbox: Outbox) -> None:
        while True:
            await outbox.put(Response(req_id="x" * 10_000))

    async with (
        serving(script) as served,
        open_h2_client(served.server.port, window_bytes=65_535) as client,
    ):
        stream = await client.call(Request(req_id="r"))
        await served.engine.until(lambda: served.engine.running == 1)
        await trio.sleep(0.05)
        await client.reset(stream)
        await served.engine.until(lambda: served.engine.ends == [("r", "cancelled")])


async def test_a_broken_connection_cancels_its_calls():
    async with serving(hang) as served:
        async with open_h2_client(served.server.port) as client:
            for name in "ab":
                await client.call(Request(req_id=name))
            await served.engine.until(lambda: served.engine.running == 2)
        await served.engine.until(
            lambda: sorted(served.engine.ends) == [("a", "cancelled"), ("b", "cancelled")]
        )


async def test_a_unary_call_is_cancelled_with_its_caller():
    async with serving(nothing) as served, served.channel() as channel:
        with trio.move_on_after(0.05):
            await channel.call(Request(req_id="hang"))
        await served.engine.until(lambda: served.server.running == 0)


async def test_the_callers_deadline_ends_the_call():
    async with serving(hang) as served, open_h2_client(served.server.port) as client:
        more: dict[str, Any] = {"grpc-timeout": "50m"}
        stream = await client.call(Request(req_id="r"), **more)
        await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == "4"
        assert served.engine.ends == [("r", "cancelled")]


async def test_a_call_ends_for_its_caller_only_when_its_task_has_ended():
    cleaned_up: list[bool] = []

    async def script(request: Request, outbox: Outbox) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(SOON_S, shield=True):
                await trio.sleep(0.1)
                cleaned_up.append(True)

    async with serving(script) as served, open_h2_client(served.server.port) as client:
        more: dict[str, Any] = {"grpc-timeout": "20m"}
        stream = await client.call(Request(req_id="r"), **more)
        await client.read_until_ended(stream)
        assert cleaned_up == [True]


async def test_no_message_overtakes_another():
    async def script(request: Request, outbox: Outbox) -> None:
        await outbox.put(Response(req_id="0"))
        await trio.sleep(0.02)  # from here on messages become frames at once
        for number in range(1, 5):
            outbox.offer(Response(req_id=f"{number}" + "x" * 20_000))  # more than a frame holds
            outbox.offer(Response(req_id=f"{number}y"))
        await outbox.room()

    async with serving(script) as served, served.channel() as channel:
        messages, _ = await read(channel)
        order = [message.req_id[:2] for message in messages]
        assert order == ["0", "1x", "1y", "2x", "2y", "3x", "3y", "4x", "4y"]


async def test_stopping_cancels_calls_and_waits_for_them():
    async with serving(hang) as served, served.channel() as channel:
        outcome: list[Any] = []

        async def call() -> None:
            outcome.append(await read(channel))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await served.engine.until(lambda: served.engine.running == 1)
            with trio.fail_after(SOON_S):
                await served.server.drain(0)
            assert served.engine.ends == [("r", "cancelled")]
    assert isinstance(outcome[0][1], Unavailable)


async def test_the_end_of_the_block_leaves_no_call_and_no_connection():
    async with serving(hang) as served:
        pass
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", served.server.port)
    engine = Engine(hang)
    async with open_bridge() as bridge:
        async with open_server(bridge, engine, "127.0.0.1", 0) as server:
            socket = await trio.open_tcp_stream("127.0.0.1", server.port)
            await socket.receive_some(1)
        with trio.fail_after(SOON_S):
            while await socket.receive_some(4096):
                pass
        await socket.aclose()


@pytest.mark.parametrize("window_bytes", [65_535, 16 << 20], ids=["window", "socket"])
async def test_draining_sends_a_slow_reader_all_that_its_engine_has_said(window_bytes: int):
    messages = 600  # 6 MB: more than the kernel takes for one who does not read

    async def script(request: Request, outbox: Outbox) -> None:
        for _ in range(messages):
            outbox.offer(Response(req_id="x" * 10_000))

    engine = Engine(script)
    ports: list[int] = []

    async def serve(started: trio.Event, ended: trio.Event) -> None:
        async with open_bridge() as bridge:
            async with open_server(bridge, engine, "127.0.0.1", 0) as server:
                ports.append(server.port)
                started.set()
                await ended.wait()
                await server.drain(30)

    async with trio.open_nursery() as nursery:
        started, ended = trio.Event(), trio.Event()
        nursery.start_soon(serve, started, ended)
        await started.wait()
        async with open_h2_client(ports[0], window_bytes=window_bytes) as client:
            stream = await client.call(Request(req_id="r"))
            await engine.until(lambda: engine.ends == [("r", "finished")])
            ended.set()
            await trio.sleep(0.1)
            client.h2.increment_flow_control_window(16 << 20, stream)
            await client.flush()
            with trio.fail_after(10 * SOON_S):
                while stream not in client.ended and await client.read(16 << 10):
                    client.h2.increment_flow_control_window(1)  # for one that has said all
                    await client.flush()
    assert client.data[stream].count(b"x" * 10_000) == messages
    assert client.headers[stream]["grpc-status"] == "0"


async def test_draining_waits_for_no_health_watch():
    async with serving(nothing) as served, open_h2_client(served.server.port) as client:
        await client.call(Request(), "/grpc.health.v1.Health/Watch")
        await client.read()
        with trio.fail_after(SOON_S):
            await served.server.drain(30)


async def test_draining_lets_calls_finish_and_refuses_new_ones():
    finish = trio.Event()

    async def script(request: Request, outbox: Outbox) -> None:
        await outbox.put(Response(req_id="1"))
        await finish.wait()
        await outbox.put(Response(req_id="2"))

    async with serving(script) as served, served.channel() as channel:
        outcomes: dict[str, Any] = {}

        async def call(name: str) -> None:
            outcomes[name] = await read(channel, name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "old")
            await served.engine.until(lambda: served.engine.running == 1)
            nursery.start_soon(served.server.drain, 30)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(SOON_S):
                await call("new")
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", served.server.port)
            finish.set()
        assert isinstance(outcomes["new"][1], Unavailable)
        assert [message.req_id for message in outcomes["old"][0]] == ["1", "2"]
        assert outcomes["old"][1] is None


async def test_an_ark_error_travels_with_code_and_param():
    error = InvalidRequest("too long", param="messages", code="context_length_exceeded")
    async with serving(failing(error)) as served, served.channel() as channel:
        messages, failure = await read(channel)
        assert not messages
        assert isinstance(failure, InvalidRequest)
        assert (failure.message, failure.param, failure.code) == (
            "too long",
            "messages",
            "context_length_exceeded",
        )


@pytest.mark.parametrize(
    "param",
    ["temperature", "messages[0].content", "ключ", "a\nb", " a ", "50%25", "\x00\x7f", "🎉"],
)
async def test_the_name_of_any_parameter_arrives_as_the_caller_wrote_it(param: str):
    error = InvalidRequest(f"{param} is unknown", param=param)
    async with serving(failing(error)) as served, served.channel() as channel:
        _, failure = await read(channel)
        assert isinstance(failure, InvalidRequest)
        assert failure.param == param


async def test_a_prefillers_failure_is_told_from_the_decoders_own_without_its_words():
    error = PrefillerFailed("The state at /etc/secret does not fit.")
    async with serving(failing(error)) as served, served.channel() as channel:
        _, failure = await read(channel)
        assert type(failure) is PrefillerFailed
        assert (failure.status, failure.code) == (502, "prefiller_failed")
        assert "secret" not in failure.message


@pytest.mark.parametrize("param", ["", "x" * 1_000_000, "🎉" * 100_000])
async def test_a_refusal_fits_into_headers_whatever_was_asked(param: str):
    error = InvalidRequest(f"This engine does not support {param}.", param=param)
    async with serving(failing(error)) as served, open_h2_client(served.server.port) as client:
        stream = await client.call(Request(req_id="r"))
        await client.read_until_ended(stream)
        headers = client.headers[stream]
        assert headers["grpc-status"] == "3"
        assert sum(len(key) + len(value) + 32 for key, value in headers.items()) < 8192
        assert ("ark-error-param" in headers) == bool(param)


async def test_a_failure_comes_after_what_was_said_before_it():
    async def script(request: Request, outbox: Outbox) -> None:
        for number in range(50):
            await outbox.put(Response(req_id=str(number)))
        raise Overloaded("full")

    async with serving(script) as served, served.channel() as channel:
        messages, failure = await read(channel)
        assert [message.req_id for message in messages] == [str(number) for number in range(50)]
        assert isinstance(failure, Overloaded)


async def test_a_crash_costs_one_call_and_tells_nothing():
    crash = RuntimeError("/etc/secret at 10.0.0.1")
    async with serving(failing(crash)) as served, open_h2_client(served.server.port) as client:
        stream = await client.call(Request(req_id="r"))
        await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == "13"
        assert "secret" not in str(client.headers) + str(client.data)
        async with served.channel() as channel:
            with pytest.raises(InternalError):
                await channel.call(Request(req_id="crash"))
            assert (await channel.call(Request(req_id="fine"))).req_id == "fine"


async def test_a_message_over_the_limit_is_refused_unread():
    options = ServerOptions(max_message_bytes=1000)
    async with serving(nothing, options) as served, open_h2_client(served.server.port) as client:
        stream = await client.send(b"\0" + (1001).to_bytes(4, "big"), end=False)
        await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == "3"
        fits = await client.call(Request(req_id="x" * 900))
        await client.read_until_ended(fits)
        assert client.headers[fits]["grpc-status"] == "0"


def framed(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def deep(field: int) -> bytes:
    """An input of lists inside each other; inputs are field 3 of a request and field 4 of a control."""
    value = b""
    for _ in range(1000):
        value = _field(10, _field(1, value))
    return _field(field, _field(1, b"key") + _field(2, value))


def _field(number: int, body: bytes) -> bytes:
    size, left = b"", len(body)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + body


@pytest.mark.parametrize("method", ["StreamingCall", "Call", "Control"])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"\1\0\0\0\0", "12", id="compressed"),
        pytest.param(framed(b"\xff\xff"), "3", id="not a message"),
        pytest.param(framed(b"\xff" * 50), "3", id="garbage"),
        pytest.param(framed(b"\x0a\x02\xff\xfe"), "3", id="not UTF-8"),
        pytest.param(framed(deep(3) + deep(4)), "3", id="deep"),
        pytest.param(framed(b"\x0f"), "3", id="no such wire type"),
        pytest.param(framed(b"\x22\x7f\x01"), "3", id="truncated"),
        pytest.param(b"\0\0\0\0\5ab", "3", id="cut short"),
        pytest.param(b"", "3", id="nothing"),
    ],
)
async def test_a_request_that_cant_be_read_is_refused(method: str, data: bytes, status: str):
    async with serving(nothing) as served, open_h2_client(served.server.port) as client:
        stream = await client.send(data, f"/inference.Inference/{method}")
        await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == status
        assert not served.engine.ends


async def test_a_control_that_nobody_knows_reaches_the_engine_as_its_number():
    async with serving(nothing) as served, open_h2_client(served.server.port) as client:
        request = framed(b"\x18\x63")
        stream = await client.send(request, "/inference.Inference/Control")
        await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == "0"
        answer = ark_pb2.ControlResponse.FromString(client.data[stream][5:])
        assert (answer.control_type, answer.outputs["type"].int64_) == (99, 99)


async def test_a_request_that_never_arrives_is_given_up():
    options = ServerOptions(request_s=0.05)
    async with serving(nothing, options) as served, open_h2_client(served.server.port) as client:
        stream = await client.send(b"\0\0", end=False)
        with trio.fail_after(SOON_S):
            await client.read_until_ended(stream)
        assert client.headers[stream]["grpc-status"] == "4"


async def test_hundreds_of_calls_share_a_connection():
    async with serving(hang) as served, open_h2_client(served.server.port) as client:
        assert client.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == ServerOptions().max_streams
        for _ in range(300):
            await client.call(Request())
        await served.engine.until(lambda: served.engine.running == 300)


async def test_garbage_costs_one_connection():
    async with serving(nothing) as served, served.channel() as channel:
        assert (await channel.call(Request(req_id="1"))).req_id == "1"
        async with await trio.open_tcp_stream("127.0.0.1", served.server.port) as socket:
            await socket.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
            with trio.fail_after(SOON_S):
                while await socket.receive_some(4096):
                    pass
        assert (await channel.call(Request(req_id="2"))).req_id == "2"


async def test_an_unread_stream_holds_little_and_stops_no_other():
    put = 0

    async def script(request: Request, outbox: Outbox) -> None:
        nonlocal put
        if request.req_id == "short":
            await outbox.put(Response(req_id="here"))
            return
        for _ in range(1000):
            await outbox.put(Response(req_id="x" * 10_000))
            put += 1

    async with (
        serving(script) as served,
        open_h2_client(served.server.port, window_bytes=65_535) as client,
    ):
        await client.call(Request(req_id="long"))
        await served.engine.until(lambda: put > 0)
        await trio.sleep(0.05)
        held = put
        stream = await client.call(Request(req_id="short"))
        # The long stream's window is never opened again: h2 acknowledges only what is asked.
        await client.read_until_ended(stream)
        assert b"here" in client.data[stream]
        assert held * 10_000 < 65_535 + (256 << 10) + 20_000
        assert put == held


async def test_control_carries_plain_values_both_ways():
    async with serving(nothing) as served, served.channel() as channel:
        answer = await channel.control(ControlType(ControlType.GetStatus))
        assert answer == {"type": int(ControlType.GetStatus), "inputs": {}}


async def test_health_and_reflection_are_served():
    async with serving(nothing) as served:
        async with served.channel() as channel:
            await served.bridge.run(_check_health_and_reflection, channel._grpc)
        await trio.lowlevel.checkpoint()
    gc.collect()


async def _check_health_and_reflection(grpc: Any) -> None:
    health = await HealthStub(grpc).Check(HealthCheckRequest(service="inference.Inference"))
    assert health.status == HealthCheckResponse.SERVING
    answers = await ServerReflectionStub(grpc).ServerReflectionInfo(
        [ServerReflectionRequest(list_services="")]
    )
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"inference.Inference", "grpc.health.v1.Health"} <= names


async def test_tls_handshakes_that_fail_leave_nothing(tmp_path: Path):
    cert = Authority(tmp_path).issue("engine", "localhost")
    context = serve_context(GrpcSettings(tls=True, cert=cert))
    async with open_fake_decoder(saying("a"), tls=context) as decoder:
        for _ in range(5):
            stream = await trio.open_tcp_stream("127.0.0.1", decoder.address.port)
            async with stream:
                await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                with trio.fail_after(5), suppress(trio.BrokenResourceError):
                    while await stream.receive_some(1024):
                        pass
        grpc = decoder.server._grpc
        assert not grpc._connections
        assert not grpc._handlers
