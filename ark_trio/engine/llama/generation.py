"""One request's answer: generated choice by choice in a slot that holds its prompt, and sent on its way."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, field, frozen

from ark_trio.engine.ledger import CallRecord
from ark_trio.engine.llama.client import LlamaClient
from ark_trio.engine.llama.job import CHAT, Job
from ark_trio.engine.llama.reader import ChoiceReader
from ark_trio.engine.llama.readers import Json
from ark_trio.engine.llama.step_gate import StepGate
from ark_trio.engine.llama.stops import StopFilter
from ark_trio.engine.llama.tool_prompt import TOOL_SYNTAX
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.step import ChoiceDelta, Step
from ark_trio.protocol.tool_text import ToolText
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2

_PIECE = 16
"""Tokens that are generated unheard while min_tokens is not reached: what a client waits for at most."""
_NEVER = -1e9
_UNFINISHED = "\ufffd"
"""How a character looks whose tokens have not all come."""


@define
class Prepared:
    """How the prompt's KV state came into the slot."""

    evaluated: int
    """Tokens computed for it, by whoever computed them."""
    cached: int
    facts: dict[str, Any] = field(factory=dict)
    """What the answer's `timings` tell of it."""


@define(kw_only=True)
class Answer:
    """One request's answer on its way out."""

    request: ark_pb2.InferenceRequest
    outbox: Outbox
    record: CallRecord
    job: Job
    prepared: Prepared
    _said: int = 0
    _first: bool = True

    def reader(self, index: int) -> ChoiceReader:
        """Return the reader of a choice that begins."""
        self._first = True
        job, wanted = self.job, self.job.wanted
        return ChoiceReader(
            index=index,
            prompt_tokens=len(job.prompt),
            cached_tokens=self.prepared.cached,
            said_before=self._said,
            stops=StopFilter(wanted.stops, wanted.include_stop),
            stop_tokens=wanted.stop_tokens,
            tool_text=None if job.tool_names is None else ToolText([TOOL_SYNTAX], job.tool_names),
            new_call_id=lambda: f"call_{uuid.uuid4().hex[:24]}",
        )

    async def end_choice(self, reader: ChoiceReader) -> None:
        """Send a choice's finish, with the totals and how long things took."""
        self._said = reader.completion_tokens
        timings = {
            "prompt_evaluated": reader.timings.get("prompt_n", 0),
            "prompt_ms": reader.timings.get("prompt_ms", 0.0),
            "predicted": reader.timings.get("predicted_n", 0),
            "predicted_ms": reader.timings.get("predicted_ms", 0.0),
            **self.prepared.facts,
        }
        await self.send(reader.end(), timings)

    async def send(self, step: Step, timings: dict[str, Any] | None = None) -> None:
        """Send a step."""
        request = self.request
        for message in encode_step(
            step, req_id=request.req_id, model=request.model_name, first=self._first
        ):
            if timings is not None:
                fill_value(message.outputs["timings"], timings)
            await self.outbox.put(message)
            self.record.sent += 1
        self._first = False


@frozen
class Generator:
    """Generates in slots. One for all requests: the steps of those that run at once leave together."""

    client: LlamaClient
    gate: StepGate

    async def run(self, slot: int, answer: Answer, index: int) -> ChoiceReader:
        """Generate one choice. The slot keeps the prompt, so a later choice evaluates its last token only.

        The reader returned tells how it went; if it was done before llama.cpp was, the slot is still at work.
        """
        job, reader = answer.job, answer.reader(index)
        if job.echo:
            await answer.send(Step(choices=(ChoiceDelta(index=index, content=job.echo),)))
        first = await self._at_least(slot, answer, reader, job.wanted.min_tokens)
        body = self._body(slot, job, index, first)
        if body is None:
            reader.finish = "length"
        else:
            feed = reader.feed_chat if job.path == CHAT else reader.feed_completion
            with self.gate.member():
                await self.client.stream(job.path, body, self._listener(answer, reader, feed))
        await answer.end_choice(reader)
        return reader

    def _body(self, slot: int, job: Job, index: int, first: list[int]) -> Json | None:
        """Return what llama.cpp is sent after `first` has been generated; None: it may generate no more."""
        body = {
            **job.wanted.choice(index, after=len(first)),
            **job.body,
            "stream": True,
            "timings_per_token": True,
            "id_slot": slot,
            "cache_prompt": True,
        }
        if first:
            body["prompt"] = job.prompt + first
        if job.wanted.max_tokens is not None:
            body["max_tokens"] = job.wanted.max_tokens - len(first)
            return body if body["max_tokens"] > 0 else None
        return body

    def _listener(
        self, answer: Answer, reader: ChoiceReader, feed: Callable[[Json], Step | None]
    ) -> Callable[[Json], Awaitable[bool]]:
        async def listen(chunk: Json) -> bool:
            step = feed(chunk)
            if step is not None:
                await self.gate.pass_together()
                await answer.send(step)
            return not reader.done

        return listen

    async def _at_least(
        self, slot: int, answer: Answer, reader: ChoiceReader, count: int
    ) -> list[int]:
        """Generate so many tokens, whatever they say; return them. llama.cpp has no such limit, so it is asked in pieces.

        The last piece ends with a whole character, so it may be a few tokens longer.
        """
        job, tokens, said = answer.job, list[int](), ""
        unfinished = False
        never = dict.fromkeys(map(str, job.wanted.stop_tokens), _NEVER)
        while len(tokens) < count or unfinished:
            body = {
                **job.wanted.choice(reader.index, after=len(tokens)),
                "prompt": job.prompt + tokens,
                "max_tokens": max(1, min(_PIECE, count - len(tokens))),
                "ignore_eos": True,
            }
            body["logit_bias"] = {**body.get("logit_bias", {}), **never}
            more = await self.client.generate(slot, body)
            if not more:
                break  # the context is full
            tokens += more
            text = (await self.client.detokenize(tokens)).rstrip(_UNFINISHED)
            step = reader.feed_first(text[len(said) :], len(more))
            said = text
            unfinished = await self._is_unfinished(tokens)
            if step is not None:
                await answer.send(step)
        return tokens

    async def _is_unfinished(self, tokens: list[int]) -> bool:
        return (await self.client.detokenize(tokens[-4:])).endswith(_UNFINISHED)
