"""What the services ask llama.cpp's server for, as functions. Its errors become ours here."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import httpx2
import orjson
import structlog
from attrs import frozen

from ark_trio.engine.llama.native import Native
from ark_trio.engine.llama.sse_lines import SseLines
from ark_trio.errors import (
    ArkError,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    PrefillerFailed,
    Unavailable,
)

log = structlog.get_logger()

Json = dict[str, Any]

_CONNECT_S = 5.0
_DATA = b"data: "
_ERROR = b"error: "
_DONE = b"data: [DONE]"
_LIBRARY_NOISE = re.compile(r"\[json\.exception[^]]*\] ?")
_DEAD_END = "empty grammar stack"
"""A grammar demands a character of which the vocabulary lacks a byte."""
_OK, _BAD_REQUEST, _BUSY = 200, 400, 503


@frozen
class LlamaClient:
    """llama.cpp's server, asked from Trio. Every method raises `ArkError` for what it refuses or fails to do."""

    http: httpx2.AsyncClient

    async def properties(self) -> Json:
        """Return what it tells of the model: template, capabilities, context."""
        return dict(await self._ask("GET", "/props", refused=_our_fault))

    async def vocabulary(self) -> int:
        """Return how many tokens the model knows."""
        models = await self._ask("GET", "/v1/models", refused=_our_fault)
        return int(models["data"][0]["meta"]["n_vocab"])

    async def apply_template(self, body: Mapping[str, Any]) -> str:
        """Return the prompt that a chat body becomes."""
        return str((await self._ask("POST", "/apply-template", body))["prompt"])

    async def tokenize(self, text: str, *, special: bool, bos: bool = True) -> list[int]:
        """Return the tokens of `text`; with `special` as a prompt: markers read as such, BOS where the model has it."""
        body = {"content": text, "add_special": special and bos, "parse_special": special}
        return list((await self._ask("POST", "/tokenize", body))["tokens"])

    async def detokenize(self, tokens: list[int]) -> str:
        """Return the text of `tokens`."""
        answer = await self._ask("POST", "/detokenize", {"tokens": tokens}, refused=_our_fault)
        return str(answer["content"])

    async def evaluate(self, slot: int, tokens: list[int], *, reuse: bool = True) -> Json:
        """Have `slot` hold the KV cache of `tokens`, computing what it lacks; return the engine's timings.

        Not `reuse`: compute all of it.
        """
        body = {"prompt": tokens, "n_predict": 0, "id_slot": slot, "cache_prompt": reuse}
        answer = await self._ask("POST", "/completion", body, refused=_our_fault)
        return dict(answer["timings"])

    async def generate(self, slot: int, body: Mapping[str, Any]) -> list[int]:
        """Generate in `slot` without a word in between; return the tokens."""
        asked = {**body, "id_slot": slot, "cache_prompt": True, "return_tokens": True}
        return list((await self._ask("POST", "/completion", asked))["tokens"])

    async def save(self, slot: int, name: str) -> int:
        """Write the slot's state to the file `name` in the state folder; return how many tokens it holds."""
        path = f"/slots/{slot}?action=save"
        answer = await self._ask("POST", path, {"filename": name}, refused=_our_fault)
        return int(answer["n_saved"])

    async def restore(self, slot: int, name: str) -> int:
        """Read the slot's state from the file `name`; return how many tokens it holds.

        Raises:
            PrefillerFailed: it isn't one.
        """
        path = f"/slots/{slot}?action=restore"
        answer = await self._ask("POST", path, {"filename": name}, refused=_no_state)
        return int(answer["n_restored"])

    async def at_rest(self, slot: int) -> bool:
        """Whether nothing is computed for `slot`."""
        slots = await self._ask("GET", "/slots", refused=_our_fault)
        return not slots[slot]["is_processing"]

    async def stream(
        self, path: str, body: Mapping[str, Any], on_chunk: Callable[[Json], Awaitable[bool]]
    ) -> None:
        """Generate, handing every chunk to `on_chunk`, until that returns False.

        Then, and when cancelled, it closes the connection, which stops the engine.
        """
        with _errors_become_ours():
            async with self.http.stream("POST", path, content=_json(body)) as response:
                if response.status_code != _OK:
                    raise _refusal(response.status_code, await response.aread())
                lines = SseLines()
                async with aclosing(response.aiter_bytes()) as pieces:
                    async for piece in pieces:
                        for chunk in filter(None, map(_chunk, lines.feed(piece))):
                            if not await on_chunk(chunk):
                                return

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        refused: Callable[[str], ArkError] = InvalidRequest,
    ) -> Any:
        """Return the answer. `refused` makes the error of a 400, whose text is llama.cpp's: not all ask for a user."""
        content = None if body is None else _json(body)
        with _errors_become_ours():
            response = await self.http.request(method, path, content=content)
            if response.status_code != _OK:
                raise _refusal(response.status_code, response.content, refused)
            return orjson.loads(response.content)


@asynccontextmanager
async def open_client(native: Native, *, patience_s: float) -> AsyncIterator[LlamaClient]:
    """Open the client; an answer or its next piece may take `patience_s`."""
    timeout = httpx2.Timeout(patience_s, connect=_CONNECT_S)
    # Slots bound what is asked at once, so the pool needs no limit of its own to wait at. No connection is used twice:
    # llama.cpp closes those that have carried a stream, or have idled, without a word, and a request sent meanwhile is
    # lost (14 of 80 second choices were). A new one on loopback costs 0.2 ms.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {
        "authorization": f"Bearer {native.key}",
        "content-type": "application/json",
        "connection": "close",
    }
    async with httpx2.AsyncClient(
        base_url=native.url, headers=headers, timeout=timeout, limits=limits, trust_env=False
    ) as http:
        yield LlamaClient(http)


def context_exceeded(
    prompt_tokens: int, context_tokens: int, *, param: str = "messages"
) -> InvalidRequest:
    """Return the refusal of a prompt, which came under `param`, that leaves no room to answer."""
    text = (
        f"This model's context is {context_tokens} tokens, but the prompt has {prompt_tokens}."
        " Shorten the prompt."
    )
    return InvalidRequest(text, param=param, code="context_length_exceeded")


def _json(body: Mapping[str, Any]) -> bytes:
    """Return the body as JSON. Within a schema foreign clients may send keys as numbers, which JSON spells as text."""
    return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)


def _chunk(line: bytes) -> Json | None:
    if line.startswith(_ERROR):
        raise _refusal_of({"error": orjson.loads(line.removeprefix(_ERROR))})
    if not line.startswith(_DATA) or line == _DONE:
        return None
    chunk: Json = orjson.loads(line.removeprefix(_DATA))
    if "error" in chunk:
        raise _refusal_of(chunk)
    return chunk


def _our_fault(_reason: str) -> ArkError:
    return InternalError("The engine failed.")


def _no_state(_reason: str) -> ArkError:
    return PrefillerFailed("The prefiller's state can't be restored.")


def _refusal(
    status: int, content: bytes, refused: Callable[[str], ArkError] = InvalidRequest
) -> ArkError:
    try:
        return _refusal_of(orjson.loads(content), status, refused)
    except orjson.JSONDecodeError:
        log.warning("llama_answer_unreadable", status=status)
        return InternalError("The engine failed.")


def _refusal_of(
    answer: Json, status: int = 500, refused: Callable[[str], ArkError] = InvalidRequest
) -> ArkError:
    error = answer["error"]
    code, message = error.get("code", status), str(error.get("message", ""))
    if error.get("type") == "exceed_context_size_error":
        return context_exceeded(error["n_prompt_tokens"], error["n_ctx"])
    log.info("llama_refused", code=code, reason=message)
    if _DEAD_END in message:
        return InvalidRequest("This model's tokens can't write what the grammar demands.")
    if code == _BAD_REQUEST:
        return refused(_LIBRARY_NOISE.sub("", message))
    if code == _BUSY:
        return Unavailable("The engine is loading.")
    return InternalError("The engine failed.")


@contextmanager
def _errors_become_ours() -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        raise DeadlineExceeded("The engine ran out of time.") from error
    except (httpx2.HTTPError, orjson.JSONDecodeError, KeyError) as error:
        log.warning("llama_failed", exc_info=error)
        raise InternalError("The engine failed.") from error
