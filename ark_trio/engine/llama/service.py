"""What decoder and prefiller have in common: the loaded engine, its slots, and the answers about both."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
from attrs import field, frozen

from ark_trio.config import Settings
from ark_trio.engine.ledger import Ledger
from ark_trio.engine.llama.client import LlamaClient, open_client
from ark_trio.engine.llama.gauges import Gauges
from ark_trio.engine.llama.inputs import check_messages
from ark_trio.engine.llama.kv import Origin
from ark_trio.engine.llama.native import open_native
from ark_trio.engine.llama.prefill import Prefill
from ark_trio.engine.llama.readers import Json
from ark_trio.engine.llama.run_dir import RunDir, open_run_dir
from ark_trio.engine.llama.slots import SlotPool
from ark_trio.engine.llama.tool_prompt import with_tools
from ark_trio.engine.llama.wish import read_tokens
from ark_trio.errors import ArkError, InvalidRequest, NotImplementedByEngine, UnknownModel
from ark_trio.model import find_model, model_name
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Role = Literal["decoder", "prefiller"]

_NATIVE_THREADS = 8


@frozen(kw_only=True)
class Loaded:
    """A loaded engine and what belongs to it. Made by `open_loaded`."""

    role: Role
    names: Sequence[str]
    client: LlamaClient
    properties: Mapping[str, Any]
    vocabulary: int
    """Tokens that the model knows: ids below it are good."""
    origin: Origin
    pool: SlotPool
    prefill: Prefill
    run_dir: RunDir
    threads: trio.CapacityLimiter
    ledger: Ledger = field(factory=Ledger)
    gauges: Gauges = field(factory=Gauges)

    @property
    def context_tokens(self) -> int:
        """Tokens of one slot, prompt and answer."""
        return int(self.properties["default_generation_settings"]["n_ctx"])

    def template_can(self, what: str) -> bool:
        """Whether the model's chat template has a capability, by llama.cpp's name for it."""
        return bool(self.properties["chat_template_caps"].get(what))

    def check_model(self, name: str) -> None:
        """Refuse a model that isn't served here; no name means the one that is."""
        if name and name not in self.names:
            raise UnknownModel(f"This engine serves {', '.join(self.names)}.", param="model")

    async def call(self, request: Request) -> Response:
        """Answer `tokenize` and `detokenize`."""
        self.check_model(request.model_name)
        inputs = decode_inputs(request)
        if request.method == "tokenize":
            outputs = await self._tokenize(inputs)
        elif request.method == "detokenize":
            tokens = read_tokens(inputs, self.vocabulary, least=0)
            outputs = {"text": await self.client.detokenize(tokens)}
        else:
            raise NotImplementedByEngine("This engine has no such method.")
        response = Response(req_id=request.req_id, model_name=request.model_name)
        for key, value in outputs.items():
            fill_value(response.outputs[key], value)
        return response

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer HealthCheck, GetStatus and PullMetrics."""
        if control_type == ControlType.HealthCheck:
            return {"status": await self._health()}
        await trio.lowlevel.checkpoint()
        load = {"slots": self.pool.count, "busy": self.pool.busy, "queued": self.pool.queued}
        match control_type:
            case ControlType.GetStatus:
                return {
                    "models": list(self.names),
                    "role": self.role,
                    "max_model_len": self.context_tokens,
                    **load,
                    **self.gauges.totals(),
                    **self.ledger.outputs(inputs.get("req_id")),
                }
            case ControlType.PullMetrics:
                return {**load, **self.ledger.totals(), **self.gauges.metrics()}
        raise NotImplementedByEngine("This engine has no such control.")

    async def _health(self) -> str:
        try:
            await self.client.properties()
        except ArkError as error:
            return error.message
        return "ok"

    async def _tokenize(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        text = inputs.get("text")
        if isinstance(text, str):
            tokens = await self.client.tokenize(text, special=False)
        elif inputs.get("messages"):
            prompt = await self._prompt(check_messages(inputs))
            tokens = await self.client.tokenize(prompt, special=True)
        else:
            raise InvalidRequest("tokenize needs text or messages.", param="text")
        return {"tokens": tokens, "count": len(tokens), "max_model_len": self.context_tokens}

    async def _prompt(self, messages: list[Json]) -> str:
        try:
            if not self.template_can("supports_tools"):
                system = self.template_can("supports_system_role")
                messages = with_tools(messages, (), system_role=system)
            return await self.client.apply_template({"messages": messages})
        except InvalidRequest as error:
            raise InvalidRequest(error.message, param="messages") from error


@asynccontextmanager
async def open_loaded(settings: Settings, role: Role) -> AsyncIterator[Loaded]:
    """Load the model and hold all that belongs to it while the block runs.

    Raises:
        ConfigError: there is no model, or it can't be loaded.
    """
    engine = settings.engine
    model = find_model(settings)
    names = engine.served_names or (model_name(model),)
    threads = trio.CapacityLimiter(_NATIVE_THREADS)
    with open_run_dir(engine.run_dir) as run_dir:
        async with (
            open_native(engine, model, run_dir.path, threads) as native,
            open_client(native, patience_s=settings.limits.first_token_s) as client,
            trio.open_nursery() as nursery,  # the slots': they come to rest after their call has ended
        ):
            prefill = Prefill(client, slots=engine.slots, piece=engine.ubatch)
            try:
                yield Loaded(
                    role=role,
                    names=tuple(names),
                    client=client,
                    properties=await client.properties(),
                    vocabulary=await client.vocabulary(),
                    origin=Origin(
                        model=native.model_sha256, build=native.build, kv_type=native.kv_type
                    ),
                    pool=SlotPool(
                        engine.slots,
                        max_waiting=engine.max_waiting,
                        at_rest=client.at_rest,
                        nursery=nursery,
                        on_free=prefill.at_rest,
                    ),
                    prefill=prefill,
                    run_dir=run_dir,
                    threads=threads,
                )
            finally:
                nursery.cancel_scope.cancel()
