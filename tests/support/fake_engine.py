"""A fake engine on a real gRPC server: what it says is scripted by the test, how each call ended is recorded."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field, frozen

from ark_trio.config import Settings
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server import ArkServer, open_server
from ark_trio.rpc.server_connection import ServerOptions
from ark_trio.settings.address import Address
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

MODEL = "deepseek-r1-0528"
Script = Callable[["Call", Outbox], Awaitable[None]]


@define(eq=False)
class Call:
    """One call as the engine saw it."""

    request: ark_pb2.InferenceRequest
    began: float = field(factory=trio.current_time)
    ended_at: float | None = None
    how: str | None = None
    ended: trio.Event = field(factory=trio.Event)

    @property
    def inputs(self) -> dict[str, Any]:
        """The request's inputs as plain values."""
        return decode_inputs(self.request)

    def say(self, step: Step) -> ark_pb2.InferenceResponse:
        """One message of this call."""
        (message,) = encode_step(step, req_id=self.request.req_id, model=self.request.model_name)
        return message


@define(eq=False)
class FakeEngine:
    """Runs `script` for each StreamingCall."""

    script: Script
    status: dict[str, Any] | Exception = field(
        factory=lambda: {"models": [MODEL], "max_model_len": 4096, "role": "decoder"}
    )
    replies: dict[str, dict[str, Any]] = field(factory=dict)
    """Outputs of unary methods, by method."""
    calls: list[Call] = field(factory=list)

    async def stream(self, request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        call = Call(request)
        self.calls.append(call)
        try:
            await self.script(call, outbox)
            call.how = "finished"
        except trio.Cancelled:
            call.how = "cancelled"
            raise
        except Exception:
            call.how = "failed"
            raise
        finally:
            call.ended_at = trio.current_time()
            call.ended.set()

    async def call(self, request: ark_pb2.InferenceRequest) -> ark_pb2.InferenceResponse:
        call = Call(request)
        self.calls.append(call)
        await trio.lowlevel.checkpoint()
        call.how = "finished"
        response = ark_pb2.InferenceResponse(req_id=request.req_id)
        for key, value in self.replies.get(request.method, {}).items():
            fill_value(response.outputs[key], value)
        return response

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(self.status, Exception):
            raise self.status
        return self.status

    @property
    def busy(self) -> int:
        """Calls that have not ended."""
        return sum(call.how is None for call in self.calls)


def text(content: str, index: int = 0) -> Step:
    return Step(choices=(ChoiceDelta(index=index, content=content),))


def finish(reason: str = "stop", index: int = 0) -> Step:
    return Step(choices=(ChoiceDelta(index=index, finish_reason=reason),))


def totals(prompt: int, completion: int) -> Step:
    return Step(usage=Usage(prompt_tokens=prompt, completion_tokens=completion))


def saying(*words: str, gap_s: float = 0.0, then: Script | None = None) -> Script:
    """A script that says `words` with a gap before each, then finishes or goes on with `then`."""

    async def script(call: Call, outbox: Outbox) -> None:
        for word in words:
            await trio.sleep(gap_s)
            await outbox.put(call.say(text(word)))
        if then is not None:
            await then(call, outbox)
            return
        await outbox.put(call.say(finish()))
        await outbox.put(call.say(totals(3, len(words))))

    return script


async def hang(call: Call, outbox: Outbox) -> None:
    """Say nothing for ever."""
    await trio.sleep_forever()


def failing(error: Exception) -> Script:
    async def script(call: Call, outbox: Outbox) -> None:
        raise error

    return script


@frozen(kw_only=True)
class FakeDecoder:
    engine: FakeEngine
    server: ArkServer

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.server.port)

    def settings(self, **changes: Any) -> Settings:
        """Settings of a gateway in front of it."""
        return Settings(decoders=(self.address,), **changes)


@asynccontextmanager
async def open_fake_decoder(
    script: Script, port: int = 0, tls: ssl.SSLContext | None = None, **engine: Any
) -> AsyncIterator[FakeDecoder]:
    """Serve a fake engine on loopback while the block runs."""
    fake = FakeEngine(script, **engine)
    options = ServerOptions(tls=tls)
    async with (
        open_bridge() as bridge,
        open_server(bridge, fake, "127.0.0.1", port, options) as server,
    ):
        yield FakeDecoder(engine=fake, server=server)
