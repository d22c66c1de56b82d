"""KV states that are damaged, exchanged or announced falsely, between two real engines in this process."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import frozen

from ark_trio.errors import PrefillerFailed
from ark_trio.protocol.value import fill_value, from_value
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server import Engine, open_server
from ark_wire import ark_pb2
from ark_wire.inference import ControlType
from tests.support.llama import Answer, ask, chat, decoder, prefiller_engine

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]

Response = ark_pb2.InferenceResponse
Tamper = Callable[[dict[str, Any], bytearray], None]
CHUNK = 1 << 20
ASKED = "Tell me three facts about the moon."


@frozen
class Tampering:
    """A prefiller between whose mouth and wire somebody changes header and state."""

    honest: Engine
    tamper: Tamper

    async def stream(self, request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        kept = _Kept()
        await self.honest.stream(request, cast(Outbox, kept))
        header = from_value(kept.messages[0].outputs["prefill.header"])
        state = bytearray(b"".join(m.outputs["prefill.chunk"].bytes_ for m in kept.messages[1:]))
        self.tamper(header, state)
        await _put(outbox, "prefill.header", header)
        for at in range(0, len(state), CHUNK):
            await _put(outbox, "prefill.chunk", bytes(state[at : at + CHUNK]))

    async def call(self, request: ark_pb2.InferenceRequest) -> Response:
        return await self.honest.call(request)

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return await self.honest.control(control_type, inputs)


class _Kept:
    """An outbox that keeps."""

    def __init__(self) -> None:
        self.messages: list[Response] = []

    async def put(self, message: Response) -> None:
        await trio.lowlevel.checkpoint()
        self.messages.append(message)


async def _put(outbox: Outbox, key: str, value: Any) -> None:
    response = Response()
    fill_value(response.outputs[key], value)
    await outbox.put(response)


def _sign(header: dict[str, Any], state: bytearray) -> None:
    """Make the header true of the state, as a prefiller would that computes wrongly."""
    header["bytes"] = len(state)
    header["sha256"] = hashlib.sha256(state).hexdigest()


def honest(header: dict[str, Any], state: bytearray) -> None:
    """Change nothing."""


def flip_a_bit(header: dict[str, Any], state: bytearray) -> None:
    state[len(state) // 2] ^= 1


def cut_the_end(header: dict[str, Any], state: bytearray) -> None:
    del state[-100:]


def append(header: dict[str, Any], state: bytearray) -> None:
    state.extend(b"more")


def other(name: str, value: Any) -> Tamper:
    def tamper(header: dict[str, Any], state: bytearray) -> None:
        header[name] = value

    return tamper


def signed_noise(header: dict[str, Any], state: bytearray) -> None:
    """Spoil the cache's numbers, not the file's form."""
    for at in range(len(state) // 4, len(state) * 3 // 4):
        state[at] ^= 0x15
    _sign(header, state)


def signed_garbage(header: dict[str, Any], state: bytearray) -> None:
    state[:64] = b"\xff" * 64
    _sign(header, state)


def signed_stump(header: dict[str, Any], state: bytearray) -> None:
    del state[len(state) // 2 :]
    _sign(header, state)


async def _answers(run_dir: Path, *tampers: Tamper) -> list[Answer]:
    """Ask the same thing of a decoder whose prefiller is tampered with in each way in turn."""
    async with open_bridge() as bridge, prefiller_engine(run_dir) as engine:
        current: list[Tamper] = [honest]

        def tamper(header: dict[str, Any], state: bytearray) -> None:
            current[0](header, state)

        async with (
            open_server(bridge, Tampering(engine, tamper), "127.0.0.1", 0) as server,
            decoder(bridge, run_dir, server.port) as channel,
        ):
            answers = []
            for current[0] in tampers:
                answers.append(await ask(channel, chat(ASKED, max_new_tokens=24)))
            return answers


async def test_damaged_or_foreign_states_are_refused_and_cost_one_request(tmp_path: Path):
    tampers = [
        flip_a_bit,
        cut_the_end,
        append,
        other("model", "0" * 64),
        other("build", "xllamacpp 0"),
        other("kv_type", "8/8/1"),
        other("tokens", 3),
        other("bytes", 1 << 50),
        other("sha256", "0" * 64),
        signed_garbage,
        signed_stump,
    ]
    *refused, last = await _answers(tmp_path, *tampers, honest)
    for answer, tamper in zip(refused, tampers, strict=True):
        # The prefiller's fault, which the client can do nothing about.
        assert isinstance(answer.error, PrefillerFailed), tamper
        assert not answer.messages
    assert last.error is None
    assert last.text() != ""


async def test_the_answer_comes_from_the_state_that_was_sent(tmp_path: Path):
    true, spoilt = await _answers(tmp_path, honest, signed_noise)
    assert true.timings[0]["prompt_evaluated"] <= 1
    assert spoilt.error is not None or spoilt.text() != true.text()


async def test_no_state_is_left_whatever_happened(tmp_path: Path):
    await _answers(tmp_path, honest, flip_a_bit, signed_garbage)
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 (a folder in memory)
