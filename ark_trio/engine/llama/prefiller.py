"""The prefiller: tokens in, the KV state of them out."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from attrs import frozen

from ark_trio.config import Settings
from ark_trio.engine.ledger import CallRecord
from ark_trio.engine.llama.client import context_exceeded
from ark_trio.engine.llama.gauges import Transferred
from ark_trio.engine.llama.kv import CHUNK_KEY, HEADER_KEY, StateHeader, read_chunks, read_digest
from ark_trio.engine.llama.service import Loaded, open_loaded
from ark_trio.engine.llama.wish import Wish, read_wish
from ark_trio.errors import NotImplementedByEngine
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse


@frozen
class LlamaPrefiller:
    """The service. Made by `open_prefiller`."""

    loaded: Loaded

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer `prefill`: the header, then the state in chunks."""
        self.loaded.check_model(request.model_name)
        if request.method != "prefill":
            raise NotImplementedByEngine("This is a prefiller; it offers prefill only.")
        wish = read_wish(request.req_id, decode_inputs(request), self.loaded.vocabulary)
        tokens = wish.tokens
        if len(tokens) >= self.loaded.context_tokens:
            raise context_exceeded(len(tokens), self.loaded.context_tokens)
        with self.loaded.ledger.record(request.req_id) as record:
            # The slot is held until the state is out: that bounds the states that lie in memory.
            async with self.loaded.pool.slot(self.loaded.prefill.fits(wish)) as slot:
                with self.loaded.run_dir.state_file() as path:
                    header = await self._compute(slot, wish, path)
                    send = partial(_send, request, outbox, record)
                    await send(HEADER_KEY, attrs.asdict(header))
                    began = trio.current_time()
                    await self._send_chunks(path, send)
                    ms = (trio.current_time() - began) * 1000
                    self.loaded.gauges.moved(Transferred(bytes=header.bytes, ms=ms))

    async def call(self, request: Request) -> Response:
        """Answer `tokenize` and `detokenize`."""
        return await self.loaded.call(request)

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer HealthCheck, GetStatus and PullMetrics."""
        return await self.loaded.control(control_type, inputs)

    async def _compute(self, slot: int, wish: Wish, path: Path) -> StateHeader:
        evaluation = await self.loaded.prefill.run(
            slot, wish.tokens, exact=wish.exact, salt=wish.salt
        )
        saved = await self.loaded.client.save(slot, path.name)
        size, digest = await trio.to_thread.run_sync(read_digest, path, limiter=self.loaded.threads)
        self.loaded.gauges.prompt(evaluation.evaluated, evaluation.ms)
        return StateHeader(
            **attrs.asdict(self.loaded.origin),
            tokens=saved,
            bytes=size,
            sha256=digest,
            evaluated=evaluation.evaluated,
            cached=evaluation.cached,
            prefill_ms=evaluation.ms,
        )

    async def _send_chunks(self, path: Path, send: Any) -> None:
        chunks = read_chunks(path)
        limiter = self.loaded.threads
        while chunk := await trio.to_thread.run_sync(next, chunks, None, limiter=limiter):
            await send(CHUNK_KEY, chunk)


@asynccontextmanager
async def open_prefiller(settings: Settings) -> AsyncIterator[LlamaPrefiller]:
    """Load the model and be a prefiller while the block runs.

    Raises:
        ConfigError: there is no model, or it can't be loaded.
    """
    async with open_loaded(settings, "prefiller") as loaded:
        yield LlamaPrefiller(loaded)


async def _send(request: Request, outbox: Outbox, record: CallRecord, key: str, value: Any) -> None:
    response = Response(req_id=request.req_id, model_name=request.model_name)
    fill_value(response.outputs[key], value)
    await outbox.put(response)
    record.sent += 1
