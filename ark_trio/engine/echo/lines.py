"""What a script has the echo engine say, message by message. Pure."""

from collections.abc import Iterable, Iterator
from itertools import count as counting
from itertools import cycle, islice
from typing import Any

from attrs import evolve, frozen

from ark_trio.engine.echo.script import MAX_CHOICES, Script
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2

Response = ark_pb2.InferenceResponse
Delta = dict[str, Any]

_MANY_BYTES = "naïve café, 日本語, 🎉👩‍🚀 "
"""What is said when the text is to be cut and none is given: characters of two to eleven bytes."""


@frozen(kw_only=True)
class Ask:
    """The parts of a request that the engine heeds beside the script."""

    req_id: str = ""
    model: str = ""
    n: int = 1
    max_tokens: int | None = None
    prompt_tokens: int = 0
    logprobs: bool = False
    echo: str = ""
    """Text to say first, beside the script."""


def say(script: Script, ask: Ask) -> Iterator[Response]:
    """Yield the answer's messages, choices taking turns."""
    script = evolve(script, shape="flat") if script.cut_bytes else script
    choices = min(script.n or ask.n, MAX_CHOICES)
    writer = _Writer(script, ask, choices)
    if script.stray_choice is not None:
        yield writer.write(script.stray_choice, {"content": "stray"}, None)
    turns = [_choice(script, ask) for _ in range(choices)]
    for step in counting():
        said = False
        for index, turn in enumerate(turns):
            for delta, finish in islice(turn, 1):
                said = True
                if step == 0:
                    delta["role"] = "assistant"
                yield writer.write(index, delta, finish)
        if not said:
            break
    if script.usage == "alone":
        yield writer.usage_alone()


def garbage(script: Script, ask: Ask) -> Response:
    """Return a message whose `choice` is a number."""
    response = Response(req_id=script.req_id or ask.req_id, model_name=ask.model)
    fill_value(response.outputs["choice"], 7)
    return response


def _choice(script: Script, ask: Ask) -> Iterator[tuple[Delta, str | None]]:
    """Yield the increments of one choice, the last with its finish_reason."""
    parts: list[Iterator[Delta]] = [
        ({"content": text} for text in (ask.echo,) if text),
        ({"reasoning_content": word} for word in _words(script.reasoning)),
        ({"content": piece} for piece in _pieces(script)),
        _tool_deltas(script),
    ]
    finish: str | None = None
    held: Delta = {}
    before = -1 if ask.echo else 0  # what is repeated is not generated
    for said, delta in enumerate((delta for part in parts for delta in part), start=before):
        if said == ask.max_tokens:
            finish = "length"
            break
        if held:
            yield held, None
        held = delta
    finish = _finish(script, finish)
    if held and not (script.merge_finish and finish):
        yield held, None
        held = {}
    if finish is not None:
        yield held, finish


def _finish(script: Script, cut: str | None) -> str | None:
    if script.finish is not None:
        return None if script.finish == "none" else script.finish
    return cut or ("tool_calls" if script.tools else "stop")


def _pieces(script: Script) -> Iterator[str | bytes]:
    """Yield the text of each message."""
    if script.cut_bytes:
        data = (script.text or _MANY_BYTES).encode()
        yield from (
            data[at : at + script.cut_bytes] for at in range(0, len(data), script.cut_bytes)
        )
        return
    if script.text is None:
        default = 0 if script.reasoning or script.tools else 16
        words: Iterable[str] = (f"{number} " for number in counting())
        wanted = default if script.count is None else script.count
    else:
        words = _words(script.text)
        wanted = script.count if script.count is not None else len(_words(script.text))
        words = cycle(words)
    for word in islice(words, wanted):
        yield word.ljust(script.size, ".") if script.size else word


def _words(text: str) -> list[str]:
    """Cut `text` after each space, so that the pieces joined are the text."""
    return [word for word in _cut_after_spaces(text) if word]


def _cut_after_spaces(text: str) -> Iterator[str]:
    parts = text.split(" ")
    yield from (part + " " for part in parts[:-1])
    yield parts[-1]


def _tool_deltas(script: Script) -> Iterator[Delta]:
    for index, tool in enumerate(script.tools):
        head = {"name": tool.name, "arguments": ""}
        call_id = f"call_{index}"
        yield {
            "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": head}]
        }
        step = max(1, -(-len(tool.arguments) // script.pieces))
        for at in range(0, len(tool.arguments), step):
            part = tool.arguments[at : at + step]
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


class _Writer:
    """Puts increments into messages, counting tokens as it goes."""

    def __init__(self, script: Script, ask: Ask, choices: int) -> None:
        self._script = script
        self._ask = ask
        self._open = choices
        self._completion = 0

    def write(self, index: int, delta: Delta, finish: str | None) -> Response:
        """Return the message for one increment."""
        self._completion += bool(delta.keys() - {"role"})
        self._open -= finish is not None
        response = self._response()
        if self._script.shape != "flat":
            fill_value(response.outputs["choice"], self._nested(index, delta, finish))
        if self._script.shape != "nested":
            self._fill_flat(response, index, delta, finish)
        last = finish is not None and self._open == 0
        if self._script.usage == "each" or (self._script.usage == "last" and last):
            self._fill_usage(response)
        return response

    def usage_alone(self) -> Response:
        """Return a message that carries usage and no choice."""
        response = self._response()
        self._fill_usage(response)
        return response

    def _response(self) -> Response:
        return Response(req_id=self._script.req_id or self._ask.req_id, model_name=self._ask.model)

    def _nested(self, index: int, delta: Delta, finish: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "message": delta}
        if finish is not None:
            choice["finish_reason"] = finish
        if self._ask.logprobs and "content" in delta:
            choice["logprobs"] = {"content": [_logprob(delta["content"])]}
        return choice

    def _fill_flat(self, response: Response, index: int, delta: Delta, finish: str | None) -> None:
        fill_value(response.outputs["choice.index"], index)
        flat = {
            "choice.message.role": delta.get("role"),
            "choice.message.content": delta.get("content"),
            "choice.finish_reason": finish,
        }
        for key, text in flat.items():
            if text is not None:
                data = text if isinstance(text, bytes) else text.encode()
                fill_value(response.outputs[key], data)

    def _fill_usage(self, response: Response) -> None:
        counts = {
            "prompt_tokens": self._ask.prompt_tokens,
            "completion_tokens": self._completion,
            "total_tokens": self._ask.prompt_tokens + self._completion,
        }
        if self._script.shape != "flat":
            fill_value(response.outputs["usage"], counts)
        if self._script.shape != "nested":
            for key, number in counts.items():
                fill_value(response.outputs[f"usage.{key}"], number)
        if self._script.cached is not None:
            hit = self._script.cached
            miss = max(0, self._ask.prompt_tokens - hit)
            cache = {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": miss}
            fill_value(response.outputs["cache"], cache)


def _logprob(token: str) -> dict[str, Any]:
    entry = {"token": token, "logprob": -0.25, "bytes": list(token.encode())}
    return {**entry, "top_logprobs": [dict(entry)]}
