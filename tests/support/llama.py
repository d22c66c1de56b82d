"""Real llama engines in this process, and ways to ask them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from ark_trio.config import EngineSettings, Settings
from ark_trio.engine.llama.decoder import open_decoder
from ark_trio.engine.llama.prefiller import open_prefiller
from ark_trio.errors import ArkError
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.protocol.value import fill_value, from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.server import Engine, open_server
from ark_trio.settings.address import Address
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse

CONTEXT = 1024
SLOTS = 2


@define(eq=False)
class Answer:
    """What a call brought."""

    messages: list[Response] = field(factory=list)
    steps: list[Step] = field(factory=list)
    error: ArkError | None = None

    @property
    def deltas(self) -> list[ChoiceDelta]:
        return [choice for step in self.steps for choice in step.choices]

    def text(self, index: int = 0) -> str:
        return "".join(delta.content for delta in self.deltas if delta.index == index)

    @property
    def finishes(self) -> list[str]:
        return [delta.finish_reason for delta in self.deltas if delta.finish_reason]

    @property
    def usage(self) -> Usage:
        usage = self.steps[-1].usage
        assert usage is not None
        return usage

    @property
    def timings(self) -> list[dict[str, Any]]:
        """The engine's own, of each choice."""
        return [from_value(m.outputs["timings"]) for m in self.messages if "timings" in m.outputs]


def chat(*contents: str, **inputs: Any) -> Request:
    """A chat request; user and assistant take turns."""
    request = Request(req_id="r")
    roles = [(b"user", b"assistant")[turn % 2] for turn in range(len(contents))]
    fill_value(request.inputs["messages.role"], roles)
    fill_value(request.inputs["messages.content"], [content.encode() for content in contents])
    for key, value in {"temperature": 0.0, **inputs}.items():
        fill_value(request.inputs[key], value)
    return request


def method(name: str, **inputs: Any) -> Request:
    request = Request(req_id="r", method=name)
    for key, value in inputs.items():
        fill_value(request.inputs[key], value)
    return request


async def ask(channel: ArkChannel, request: Request, *, began: trio.Event | None = None) -> Answer:
    """Run a streaming call to its end; `began` is set at its first message."""
    answer = Answer()
    mailbox = Mailbox[Response]()
    decoder = ResponseDecoder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.stream, request, mailbox)
        try:
            while batch := await mailbox.take():
                if began is not None:
                    began.set()
                answer.messages += batch
                if request.method != "prefill":
                    answer.steps += map(decoder.feed, batch)
        except ArkError as error:
            answer.error = error
    return answer


async def status(channel: ArkChannel) -> dict[str, Any]:
    return await channel.control(ControlType(ControlType.GetStatus))


async def seconds_until_free(channel: ArkChannel) -> float:
    began = trio.current_time()
    with trio.fail_after(10):
        while (await status(channel))["busy"]:
            await trio.sleep(0.005)
    return trio.current_time() - began


def settings(run_dir: Path, *prefillers: int, **engine: Any) -> Settings:
    return Settings(
        prefillers=tuple(Address(host="127.0.0.1", port=port) for port in prefillers),
        engine=EngineSettings(
            **{"slots": SLOTS, "context_tokens": CONTEXT, "run_dir": run_dir, **engine}
        ),
    )


@asynccontextmanager
async def served(bridge: Bridge, engine: Engine, port: int = 0) -> AsyncIterator[ArkChannel]:
    """Serve `engine` and call it. The channel knows its port."""
    async with (
        open_server(bridge, engine, "127.0.0.1", port) as server,
        open_channel(bridge, "127.0.0.1", server.port) as channel,
    ):
        yield channel


@asynccontextmanager
async def decoder(
    bridge: Bridge, run_dir: Path, *prefillers: int, **engine: Any
) -> AsyncIterator[ArkChannel]:
    async with (
        open_decoder(settings(run_dir, *prefillers, **engine), bridge) as service,
        served(bridge, service) as channel,
    ):
        yield channel


@asynccontextmanager
async def prefiller_engine(run_dir: Path, **engine: Any) -> AsyncIterator[Engine]:
    async with open_prefiller(settings(run_dir, **engine)) as service:
        yield service
