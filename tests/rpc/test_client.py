"""The client's promises towards one engine, over a real gRPC server on loopback."""

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from h2.errors import ErrorCodes

from ark_trio.errors import (
    ArkError,
    BadBackend,
    InternalError,
    InvalidRequest,
    NotImplementedByEngine,
    Overloaded,
    Unavailable,
    Unreachable,
)
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.rpc.call import Call
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server import open_server
from ark_trio.rpc.server_connection import ServerOptions
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Script = Callable[[ark_pb2.InferenceRequest, Outbox], Awaitable[None]]


def message(text: str) -> ark_pb2.InferenceResponse:
    return ark_pb2.InferenceResponse(outputs={"text": ark_pb2.Value(string_=text)})


def text_of(response: ark_pb2.InferenceResponse) -> str:
    return response.outputs["text"].string_


@define(eq=False)
class Engine:
    script: Script
    begun: int = 0
    ended: list[str] = field(factory=list)
    changed: trio.Event = field(factory=trio.Event)

    async def stream(self, request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        self.begun += 1
        self._change()
        how = "failed"
        try:
            await self.script(request, outbox)
            how = "finished"
        except trio.Cancelled:
            how = "cancelled"
            raise
        finally:
            self.ended.append(how)
            self._change()

    async def call(self, request: ark_pb2.InferenceRequest) -> ark_pb2.InferenceResponse:
        if request.req_id == "bad":
            raise InvalidRequest("no such text", param="text", code="bad_text")
        return message(f"called {request.req_id}")

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if control_type == ControlType.PullMetrics:
            raise NotImplementedByEngine("no metrics")
        return {"models": ["a", "b"], "slots": 4, "ok": True, "role": "decoder"}

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


@asynccontextmanager
async def open_pair(
    script: Script, options: ChannelOptions | None = None
) -> AsyncIterator[tuple[Engine, ArkChannel]]:
    engine = Engine(script)
    async with (
        open_bridge() as bridge,
        open_server(
            bridge, engine, "127.0.0.1", 0, ServerOptions(max_message_bytes=64 << 20)
        ) as server,
        open_channel(bridge, "127.0.0.1", server.port, options) as channel,
    ):
        yield engine, channel


async def read_all(channel: ArkChannel, mailbox: Mailbox[ark_pb2.InferenceResponse]) -> list[str]:
    words: list[str] = []
    failure: ArkError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(req_id="r"), mailbox)
        try:
            while batch := await mailbox.take():
                words += map(text_of, batch)
        except ArkError as error:
            failure = error
    if failure is not None:
        raise failure
    return words


async def count_to(n: int, outbox: Outbox) -> None:
    for i in range(n):
        await outbox.put(message(str(i)))


@pytest.mark.parametrize("limit", [1, 64])
async def test_a_stream_arrives_whole_and_in_order(limit: int):
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await count_to(500, outbox)

    async with open_pair(script) as (engine, channel):
        assert await read_all(channel, Mailbox(limit)) == [str(i) for i in range(500)]
        assert engine.ended == ["finished"]


async def test_messages_before_a_failure_arrive_before_it():
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await count_to(3, outbox)
        raise Overloaded("full")

    async with open_pair(script) as (_, channel):
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
        await channel.stream(ark_pb2.InferenceRequest(), mailbox)
        assert len(await mailbox.take()) == 3
        with pytest.raises(Overloaded):
            await mailbox.take()


@pytest.mark.parametrize("phase", ["before the first message", "mid-stream", "while backpressured"])
async def test_cancelling_resets_the_engines_call_at_once(
    phase: str, monkeypatch: pytest.MonkeyPatch
):
    codes: list[ErrorCodes] = []
    reset = Call.reset

    def recording(call: Call[Any], code: ErrorCodes) -> None:
        codes.append(code)
        reset(call, code)

    monkeypatch.setattr(Call, "reset", recording)

    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        if phase == "mid-stream":
            await count_to(3, outbox)
        if phase == "while backpressured":
            await count_to(1_000_000, outbox)
        await trio.sleep_forever()

    async with open_pair(script) as (engine, channel):
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox(limit=4)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
            with trio.fail_after(5):
                await engine.until(lambda: engine.begun == 1)
                if phase != "before the first message":
                    await mailbox.take()
                if phase == "while backpressured":
                    await trio.sleep(0.2)  # let every buffer on the way fill up
                nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await engine.until(lambda: engine.ended == ["cancelled"])
        assert codes[0] is ErrorCodes.CANCEL
        # Nothing of the call is left on the connection.
        assert not any(c.processor.streams or c._inlets for c in channel._grpc.connections)


async def test_one_unread_stream_does_not_stop_the_others():
    async def script(request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        if request.req_id == "stalled":
            while True:
                await outbox.put(message("x" * 10_000))
        await count_to(1000, outbox)

    # Small, so that a stream could fill the connection's window if its own did not hold it.
    options = ChannelOptions(stream_window_bytes=1 << 17, connection_window_bytes=1 << 19)
    async with open_pair(script, options) as (_, channel), trio.open_nursery() as nursery:
        stalled: Mailbox[ark_pb2.InferenceResponse] = Mailbox(limit=4)
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(req_id="stalled"), stalled)
        await stalled.take()
        await trio.sleep(0.2)
        with trio.fail_after(5):
            assert len(await read_all(channel, Mailbox())) == 1000
        nursery.cancel_scope.cancel()


async def test_a_mailbox_that_is_not_read_holds_its_limit_and_no_more():
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await count_to(100_000, outbox)

    async with open_pair(script) as (_, channel), trio.open_nursery() as nursery:
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox(limit=8)
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
        await trio.sleep(0.2)
        assert len(await mailbox.take()) == 8
        nursery.cancel_scope.cancel()


async def test_a_message_over_the_limit_is_a_clear_error_and_resets_the_call():
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await outbox.put(message("x" * 200_000))
        await trio.sleep_forever()

    async with open_pair(script, ChannelOptions(max_message_bytes=100_000)) as (engine, channel):
        with pytest.raises(BadBackend, match="size limit"):
            await read_all(channel, Mailbox())
        with trio.fail_after(1):
            await engine.until(lambda: engine.ended == ["cancelled"])


async def do_nothing(_request: ark_pb2.InferenceRequest, _outbox: Outbox) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_unary_call_answers_and_names_its_fault():
    async with open_pair(do_nothing) as (_, channel):
        answer = await channel.call(ark_pb2.InferenceRequest(req_id="x"))
        assert text_of(answer) == "called x"
        with pytest.raises(InvalidRequest, match="no such text") as caught:
            await channel.call(ark_pb2.InferenceRequest(req_id="bad"))
        assert (caught.value.param, caught.value.code) == ("text", "bad_text")


async def test_control_answers_plain_values():
    async with open_pair(do_nothing) as (_, channel):
        status = await channel.control(ControlType.GetStatus)
        assert status == {"models": ["a", "b"], "slots": 4, "ok": True, "role": "decoder"}
        with pytest.raises(NotImplementedByEngine):
            await channel.control(ControlType.PullMetrics)


async def test_an_engine_that_is_away_is_unreachable_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_bridge() as bridge, open_channel(bridge, "127.0.0.1", port) as channel:
        with trio.fail_after(1), pytest.raises(Unreachable) as caught:
            await read_all(channel, Mailbox())
        assert str(port) not in caught.value.message


async def test_connecting_is_bounded():
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:
        crowd = [_fill_backlog(deaf.getsockname()) for _ in range(8)]
        async with open_bridge() as bridge:
            options = ChannelOptions(connect_s=0.2)
            host, port = deaf.getsockname()
            async with open_channel(bridge, host, port, options) as channel:
                with trio.fail_after(2), pytest.raises(Unreachable) as caught:
                    await read_all(channel, Mailbox())
        assert caught.value.code == "connect_timeout"
        for sock in crowd:
            sock.close()


def _fill_backlog(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(address) in (0, errno.EINPROGRESS)
    return sock


async def test_a_lost_connection_ends_its_calls_and_the_next_call_reconnects():
    async def script(request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await count_to(2, outbox)
        if request.req_id == "long":
            await trio.sleep_forever()

    engine = Engine(script)
    async with open_bridge() as bridge, trio.open_nursery() as servers:
        port, stop = await servers.start(serve, bridge, engine, 0)
        async with open_channel(bridge, "127.0.0.1", port) as channel:
            mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(req_id="long"), mailbox)
                assert await mailbox.take()
                stop.cancel()
                with trio.fail_after(3):
                    await engine.until(lambda: engine.ended == ["cancelled"])
                    with pytest.raises(Unavailable):
                        await drain(mailbox)
            with pytest.raises(Unreachable):
                await read_all(channel, Mailbox())
            _, stop = await servers.start(serve, bridge, engine, port)
            assert await read_all(channel, Mailbox()) == ["0", "1"]
            stop.cancel()


async def drain(mailbox: Mailbox[ark_pb2.InferenceResponse]) -> None:
    while await mailbox.take():
        pass


async def serve(
    bridge: Bridge,
    engine: Engine,
    port: int,
    *,
    task_status: trio.TaskStatus[tuple[int, trio.CancelScope]],
) -> None:
    """Serve until cancelled, as a task."""
    with trio.CancelScope() as stop:
        async with open_server(bridge, engine, "127.0.0.1", port) as server:
            task_status.started((server.port, stop))
            await trio.sleep_forever()


async def test_what_an_engine_says_of_itself_does_not_reach_the_client():
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        raise ArkError("/var/secret on 10.0.0.7 is broken")

    async with open_pair(script) as (_, channel):
        with pytest.raises(InternalError) as caught:
            await read_all(channel, Mailbox())
        assert "10.0.0.7" not in caught.value.message
