"""The decoder: a conversation in, tokens out, the prompt's KV state fetched from a prefiller."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import frozen

from ark_trio.config import Settings
from ark_trio.engine.llama.gauges import Transferred
from ark_trio.engine.llama.generation import Answer, Generator, Prepared
from ark_trio.engine.llama.job import Job, understand
from ark_trio.engine.llama.remote import Prefillers, open_prefillers
from ark_trio.engine.llama.service import Loaded, open_loaded
from ark_trio.engine.llama.step_gate import StepGate
from ark_trio.engine.llama.wish import Wish
from ark_trio.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotImplementedByEngine,
    PrefillerFailed,
    Unavailable,
)
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse

_METHODS = frozenset({"", "chat", "completion"})


@frozen
class LlamaDecoder:
    """The service. Made by `open_decoder`."""

    loaded: Loaded
    prefillers: Prefillers
    generator: Generator
    local_prefill: bool
    """Prefill here while no prefiller answers. Without prefillers it is done here in any case."""
    prefill_s: float
    """Time that a prefiller may take."""

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer `chat` and `completion`."""
        self.loaded.check_model(request.model_name)
        if request.method not in _METHODS:
            raise NotImplementedByEngine("This decoder has no such streaming method.")
        with self.loaded.ledger.record(request.req_id) as record:
            job = await understand(self.loaded, request.method, decode_inputs(request))
            wish = Wish(
                req_id=request.req_id,
                tokens=job.prompt,
                exact=job.wanted.seed is not None,
                salt=job.wanted.salt,
            )
            async with self.loaded.pool.slot(self.loaded.prefill.fits(wish)) as slot:
                prepared = await self._prepare(slot, wish)
                answer = Answer(
                    request=request, outbox=outbox, record=record, job=job, prepared=prepared
                )
                for index in range(job.wanted.n):
                    await self._generate(slot, answer, index)

    async def call(self, request: Request) -> Response:
        """Answer `tokenize` and `detokenize`."""
        return await self.loaded.call(request)

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer HealthCheck, GetStatus and PullMetrics."""
        return await self.loaded.control(control_type, inputs)

    async def _prepare(self, slot: int, wish: Wish) -> Prepared:
        """Bring the prompt's KV state into the slot."""
        if self.prefillers.known:
            try:
                return await self._fetch(slot, wish)
            except Unavailable:
                if not self.local_prefill:
                    raise
        local = await self.loaded.prefill.run(slot, wish.tokens, exact=wish.exact, salt=wish.salt)
        self.loaded.gauges.prompt(local.evaluated, local.ms)
        return Prepared(local.evaluated, local.cached, {"local_prefill_ms": local.ms})

    async def _fetch(self, slot: int, wish: Wish) -> Prepared:
        self.loaded.prefill.forget(slot)
        with self.loaded.run_dir.state_file() as path:
            try:
                with trio.fail_after(self.prefill_s):
                    transfer = await self.prefillers.fetch(wish, path)
            except trio.TooSlowError as error:
                raise DeadlineExceeded("The prefiller ran out of time.") from error
            began = time.monotonic()
            if await self.loaded.client.restore(slot, path.name) != len(wish.tokens):
                raise PrefillerFailed("The prefiller's state holds another number of tokens.")
        self.loaded.prefill.note(slot, wish.tokens, salt=wish.salt)
        header = transfer.header
        transfer_ms = max(0.0, transfer.seconds * 1000 - header.prefill_ms)
        restore_ms = (time.monotonic() - began) * 1000
        self.loaded.gauges.moved(Transferred(bytes=header.bytes, ms=transfer_ms + restore_ms))
        facts = {
            "prefill_evaluated": header.evaluated,
            "prefill_ms": header.prefill_ms,
            "transfer_ms": transfer_ms,
            "restore_ms": restore_ms,
            "kv_bytes": header.bytes,
        }
        return Prepared(header.evaluated, header.cached, facts)

    async def _generate(self, slot: int, answer: Answer, index: int) -> None:
        job: Job = answer.job
        try:
            reader = await self.generator.run(slot, answer, index)
        except InvalidRequest as error:
            raise job.wanted.blame(error) from error
        if reader.done:
            self.loaded.pool.mark_at_work(slot)
        timings = reader.timings
        self.loaded.gauges.prompt(timings.get("prompt_n", 0), timings.get("prompt_ms", 0.0))
        self.loaded.gauges.completion(
            reader.completion_tokens - reader.said_before, timings.get("predicted_ms", 0.0)
        )


@asynccontextmanager
async def open_decoder(settings: Settings, bridge: Bridge) -> AsyncIterator[LlamaDecoder]:
    """Load the model and be a decoder while the block runs.

    Raises:
        ConfigError: there is no model, or it can't be loaded.
    """
    async with (
        open_loaded(settings, "decoder") as loaded,
        open_prefillers(bridge, settings, loaded.origin, loaded.threads) as prefillers,
    ):
        yield LlamaDecoder(
            loaded,
            prefillers,
            Generator(loaded.client, StepGate()),
            settings.engine.local_prefill,
            settings.limits.first_token_s,
        )
