"""The decoder: a conversation in, tokens out, the prompt's KV state fetched from a prefiller."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field, frozen

from ark_trio.config import Settings
from ark_trio.engine.ledger import CallRecord
from ark_trio.engine.llama.chunks import ChunkReader
from ark_trio.engine.llama.client import Json, context_exceeded
from ark_trio.engine.llama.inputs import CHAT_ONLY, Wanted, check_messages, read_parameters
from ark_trio.engine.llama.remote import Prefillers, open_prefillers
from ark_trio.engine.llama.service import Loaded, open_loaded, read_tokens
from ark_trio.engine.llama.step_gate import StepGate
from ark_trio.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotImplementedByEngine,
    PrefillerFailed,
    Unavailable,
)
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.step import Step
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse

_CHAT = "/v1/chat/completions"
_COMPLETION = "/completion"


@frozen(kw_only=True)
class Job:
    """A request, understood."""

    path: str
    prompt: list[int]
    body: Json
    """The prompt's part of what llama.cpp is sent."""
    wanted: Wanted


@define
class Prepared:
    """How the prompt's KV state came into the slot."""

    evaluated: int
    """Tokens computed for it, by whoever computed them."""
    cached: int
    facts: dict[str, Any] = field(factory=dict)
    """What the answer's `timings` tell of it."""


@frozen
class LlamaDecoder:
    """The service. Made by `open_decoder`."""

    loaded: Loaded
    prefillers: Prefillers
    local_prefill: bool
    """Prefill here while no prefiller answers. Without prefillers it is done here in any case."""
    prefill_s: float
    """Time that a prefiller may take."""
    gate: StepGate = field(factory=StepGate)

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer `chat` and `completion`."""
        self.loaded.check_model(request.model_name)
        with self.loaded.ledger.record(request.req_id) as record:
            job = await self._understand(request)
            self._check_fit(job)
            async with self.loaded.pool.slot() as slot:
                prepared = await self._prepare(slot, request.req_id, job.prompt)
                answer = _Answer(request, outbox, record, job, prepared)
                for index in range(job.wanted.n):
                    await self._generate(slot, answer, index)

    async def call(self, request: Request) -> Response:
        """Answer `tokenize` and `detokenize`."""
        return await self.loaded.call(request)

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer HealthCheck and GetStatus."""
        return await self.loaded.control(control_type, inputs)

    async def _understand(self, request: Request) -> Job:
        inputs = decode_inputs(request)
        if request.method in ("", "chat"):
            return await self._understand_chat(inputs)
        if request.method == "completion":
            return await self._understand_completion(inputs)
        raise NotImplementedByEngine("This decoder has no such streaming method.")

    async def _understand_chat(self, inputs: Mapping[str, Any]) -> Job:
        tools = bool(self.loaded.properties["chat_template_caps"].get("supports_tools"))
        body: Json = {"messages": check_messages(inputs, tools=tools)}
        wanted = read_parameters(inputs, beside=frozenset({"messages"}))
        try:
            prompt = await self.loaded.client.apply_template({**wanted.body, **body})
        except InvalidRequest as error:
            raise wanted.blame(error, "messages") from error
        tokens = await self.loaded.client.tokenize(prompt, special=True)
        return Job(path=_CHAT, prompt=tokens, body=body, wanted=wanted)

    async def _understand_completion(self, inputs: Mapping[str, Any]) -> Job:
        wanted = read_parameters(inputs, beside=frozenset({"prompt"}), refused=CHAT_ONLY)
        if isinstance(inputs.get("prompt"), str):
            tokens = await self.loaded.client.tokenize(inputs["prompt"], special=True)
        else:
            tokens = read_tokens(inputs, self.loaded.vocabulary, "prompt")
        if not tokens:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        body: Json = {"prompt": tokens}
        if "top_logprobs" in wanted.body:
            body["n_probs"] = wanted.body["top_logprobs"]
        return Job(path=_COMPLETION, prompt=tokens, body=body, wanted=wanted)

    def _check_fit(self, job: Job) -> None:
        limit = job.wanted.max_prompt_tokens
        if limit is not None and len(job.prompt) > limit:
            text = f"The prompt has {len(job.prompt)} tokens; max_prompt_tokens is {limit}."
            raise InvalidRequest(text, param="max_prompt_tokens")
        if len(job.prompt) >= self.loaded.context_tokens:
            raise context_exceeded(len(job.prompt), self.loaded.context_tokens)

    async def _prepare(self, slot: int, req_id: str, prompt: list[int]) -> Prepared:
        """Bring the prompt's KV state into the slot."""
        if self.prefillers.channels:
            try:
                return await self._fetch(slot, req_id, prompt)
            except Unavailable:
                if not self.local_prefill:
                    raise
        local = await self.loaded.prefill.run(slot, prompt)
        self.loaded.counts.prompt(local.evaluated)
        return Prepared(local.evaluated, local.cached, {"local_prefill_ms": local.ms})

    async def _fetch(self, slot: int, req_id: str, prompt: list[int]) -> Prepared:
        self.loaded.prefill.note(slot, [])
        with self.loaded.run_dir.state_file() as path:
            try:
                with trio.fail_after(self.prefill_s):
                    transfer = await self.prefillers.fetch(req_id, prompt, path)
            except trio.TooSlowError as error:
                raise DeadlineExceeded("The prefiller ran out of time.") from error
            began = time.monotonic()
            if await self.loaded.client.restore(slot, path.name) != len(prompt):
                raise PrefillerFailed("The prefiller's state holds another number of tokens.")
        self.loaded.prefill.note(slot, prompt)
        header = transfer.header
        self.loaded.counts.kv_bytes += header.bytes
        facts = {
            "prefill_evaluated": header.evaluated,
            "prefill_ms": header.prefill_ms,
            "transfer_ms": max(0.0, transfer.seconds * 1000 - header.prefill_ms),
            "restore_ms": (time.monotonic() - began) * 1000,
            "kv_bytes": header.bytes,
        }
        return Prepared(header.evaluated, header.cached, facts)

    async def _generate(self, slot: int, answer: "_Answer", index: int) -> None:
        """Generate one choice. The slot keeps the prompt, so a later choice evaluates its last token only."""
        job = answer.job
        reader = answer.reader(index)
        feed = reader.feed_chat if job.path == _CHAT else reader.feed_completion
        body = {
            **job.wanted.choice(index),
            **job.body,
            "stream": True,
            "timings_per_token": True,
            "id_slot": slot,
            "cache_prompt": True,
        }
        try:
            with self.gate.member():
                await self.loaded.client.stream(job.path, body, answer.listener(feed, self.gate))
        except InvalidRequest as error:
            raise job.wanted.blame(error) from error
        self.loaded.counts.prompt(reader.timings["prompt_n"])
        self.loaded.counts.completion_tokens += reader.timings["predicted_n"]
        await answer.end_choice(reader)


class _Answer:
    """One request's answer on its way out."""

    def __init__(
        self, request: Request, outbox: Outbox, record: CallRecord, job: Job, prepared: Prepared
    ) -> None:
        self.job = job
        self._request = request
        self._outbox = outbox
        self._record = record
        self._prepared = prepared
        self._said = 0
        self._first = True

    def reader(self, index: int) -> ChunkReader:
        """Return the reader of a choice that begins."""
        self._first = True
        return ChunkReader(index, len(self.job.prompt), self._prepared.cached, self._said)

    def listener(self, feed: Callable[[Json], Step | None], gate: StepGate) -> Any:
        """Return what sends on what `feed` makes of a chunk."""

        async def listen(chunk: Json) -> None:
            step = feed(chunk)
            if step is not None:
                await gate.pass_together()
                await self._send(step)

        return listen

    async def end_choice(self, reader: ChunkReader) -> None:
        """Send a choice's finish, with the totals and how long things took."""
        self._said = reader.completion_tokens
        timings = {
            "prompt_evaluated": reader.timings["prompt_n"],
            "prompt_ms": reader.timings["prompt_ms"],
            "predicted": reader.timings["predicted_n"],
            "predicted_ms": reader.timings["predicted_ms"],
            **self._prepared.facts,
        }
        await self._send(reader.end(), timings)

    async def _send(self, step: Step, timings: dict[str, Any] | None = None) -> None:
        request = self._request
        for message in encode_step(
            step, req_id=request.req_id, model=request.model_name, first=self._first
        ):
            if timings is not None:
                fill_value(message.outputs["timings"], timings)
            await self._outbox.put(message)
            self._record.sent += 1
        self._first = False


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
            loaded, prefillers, settings.engine.local_prefill, settings.limits.first_token_s
        )
