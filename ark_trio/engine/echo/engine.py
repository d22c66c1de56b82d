"""The echo engine: an ARK service that does what each request's last user message says."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
from attrs import field, frozen

from ark_trio.engine.echo.clock import StepClock
from ark_trio.engine.echo.lines import Ask
from ark_trio.engine.echo.player import Player
from ark_trio.engine.echo.script import MAX_CHOICES, parse_script
from ark_trio.engine.ledger import CallRecord, Ledger
from ark_trio.errors import InvalidRequest, NotImplementedByEngine, Overloaded, UnknownModel
from ark_trio.protocol.chat_inputs import decode_inputs
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

Request = ark_pb2.InferenceRequest
Response = ark_pb2.InferenceResponse
Role = Literal["decoder", "prefiller"]

SLOTS = 4096
CONTEXT_TOKENS = 1 << 20
_CHUNK_BYTES = 1 << 20
_STATE_BYTES_A_TOKEN = 64


@frozen(kw_only=True)
class EchoEngine:
    """Answers by script. Made by `open_echo`."""

    role: Role
    names: Sequence[str]
    _clock: StepClock = field(alias="clock")
    _ledger: Ledger = field(factory=Ledger, alias="ledger")

    async def stream(self, request: Request, outbox: Outbox) -> None:
        """Answer `chat` and `completion`, or as a prefiller `prefill`."""
        self._check_model(request.model_name)
        if self._ledger.running >= SLOTS:
            raise Overloaded("All slots are taken.")
        with self._ledger.record(request.req_id) as record:
            if request.method == "prefill" and self.role == "prefiller":
                await _prefill(request, outbox, record)
            elif request.method in ("", "chat", "completion") and self.role == "decoder":
                await self._answer(request, outbox, record)
            else:
                raise NotImplementedByEngine(f"The echo {self.role} has no such streaming method.")

    async def call(self, request: Request) -> Response:
        """Answer `tokenize` and `detokenize`: a token is a Unicode code point."""
        await trio.lowlevel.checkpoint()
        self._check_model(request.model_name)
        inputs = decode_inputs(request)
        response = Response(req_id=request.req_id, model_name=request.model_name)
        for key, value in _CALLS.get(request.method, _unknown_method)(inputs).items():
            fill_value(response.outputs[key], value)
        return response

    async def control(self, control_type: ControlType, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer HealthCheck, PullMetrics, and GetStatus, which tells of past calls too."""
        await trio.lowlevel.checkpoint()
        if control_type == ControlType.HealthCheck:
            return {"status": "ok"}
        load = {"slots": SLOTS, "busy": self._ledger.running, "queued": 0}
        match control_type:
            case ControlType.GetStatus:
                return {
                    "models": list(self.names),
                    "role": self.role,
                    "max_model_len": CONTEXT_TOKENS,
                    **load,
                    **self._ledger.outputs(inputs.get("req_id")),
                }
            case ControlType.PullMetrics:
                return {**load, **self._ledger.totals()}
        raise NotImplementedByEngine("The echo engine has no such control.")

    def _check_model(self, name: str) -> None:
        if name and name not in self.names:
            raise UnknownModel(f"This engine serves {', '.join(self.names)}.", param="model")

    async def _answer(self, request: Request, outbox: Outbox, record: CallRecord) -> None:
        inputs = decode_inputs(request)
        script = parse_script(_last_words(inputs))
        player = Player(script, _ask(request, inputs), outbox, record)
        delay_s = script.first_delay_s
        while not player.ended:
            await self._clock.play(player.step, gap_s=script.gap_s, delay_s=delay_s)
            delay_s = 0.0
            if player.hangs:
                await trio.sleep_forever()
            await outbox.room()
        if player.error is not None:
            raise player.error


@asynccontextmanager
async def open_echo(*, role: Role, names: Sequence[str]) -> AsyncIterator[EchoEngine]:
    """Run the engine while the block runs. `names` are the models that it answers for."""
    clock = StepClock()
    # Holds the clock's task, which the engine's calls share.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        try:
            yield EchoEngine(role=role, names=tuple(names), clock=clock)
        finally:
            nursery.cancel_scope.cancel()


def _ask(request: Request, inputs: Mapping[str, Any]) -> Ask:
    n = inputs.get("n", 1)
    if type(n) is not int or not 1 <= n <= MAX_CHOICES:
        raise InvalidRequest(f"n must be from 1 to {MAX_CHOICES}.", param="n")
    max_tokens = inputs.get("max_new_tokens")
    return Ask(
        req_id=request.req_id,
        model=request.model_name,
        n=n,
        max_tokens=max_tokens if type(max_tokens) is int else None,
        prompt_tokens=len(_prompt(inputs)),
        logprobs=inputs.get("logprobs") is not None,
        echo=_prompt(inputs) if inputs.get("echo") is True else "",
    )


def _last_words(inputs: Mapping[str, Any]) -> str:
    if "prompt" in inputs:
        return _prompt(inputs)
    messages = inputs.get("messages") or []
    users = [message for message in messages if message["role"] == "user"]
    if not users:
        raise InvalidRequest("The echo engine needs a user message.", param="messages")
    return _flat_text(users[-1]["content"])


def _prompt(inputs: Mapping[str, Any]) -> str:
    """Return all text of the request; its length is the prompt's, in tokens."""
    prompt = inputs.get("prompt")
    if prompt is not None:
        return prompt if isinstance(prompt, str) else _spelled(prompt, "prompt")
    return "".join(_flat_text(message["content"]) for message in inputs.get("messages") or [])


def _flat_text(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        return "".join(str(part) for part in parts)
    return "" if content is None else str(content)


def _tokenize(inputs: Mapping[str, Any]) -> dict[str, Any]:
    text = inputs.get("text")
    tokens = [ord(letter) for letter in (_prompt(inputs) if text is None else str(text))]
    return {"tokens": tokens, "count": len(tokens), "max_model_len": CONTEXT_TOKENS}


def _detokenize(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": _spelled(inputs.get("tokens"), "tokens")}


def _unknown_method(_inputs: Mapping[str, Any]) -> dict[str, Any]:
    raise NotImplementedByEngine("The echo engine has no such method.")


_CALLS = {"tokenize": _tokenize, "detokenize": _detokenize}


def _spelled(tokens: Any, param: str) -> str:
    try:
        return "".join(chr(token) for token in tokens or ()).encode().decode()
    except (TypeError, ValueError, OverflowError) as error:
        text = f"{param} must be a list of Unicode code points."
        raise InvalidRequest(text, param=param) from error


async def _prefill(request: Request, outbox: Outbox, record: CallRecord) -> None:
    """Send a made-up state: the right shape, header, chunks and hash, for the tokens asked."""
    tokens = decode_inputs(request).get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise InvalidRequest("tokens must be a list of at least one token.", param="tokens")
    seed = hashlib.sha256(repr(tokens).encode()).digest()
    state = (seed * (_STATE_BYTES_A_TOKEN // len(seed))) * len(tokens)
    header = {
        "model": "echo",
        "build": "echo",
        "kv_type": "echo",
        "tokens": len(tokens),
        "bytes": len(state),
        "sha256": hashlib.sha256(state).hexdigest(),
    }
    await _put(request, outbox, record, "prefill.header", header)
    for at in range(0, len(state), _CHUNK_BYTES):
        await _put(request, outbox, record, "prefill.chunk", state[at : at + _CHUNK_BYTES])


async def _put(request: Request, outbox: Outbox, record: CallRecord, key: str, value: Any) -> None:
    response = Response(req_id=request.req_id, model_name=request.model_name)
    fill_value(response.outputs[key], value)
    await outbox.put(response)
    record.sent += 1
