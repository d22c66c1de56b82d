"""The strong baseline: what a good engineer gets out of asyncio in a day, with no feature that costs a token anything.

Raw ASGI on uvicorn (uvloop, httptools), one shared grpc.aio channel, each message parsed by upb, one field read, and put
between constant pieces of JSON. No validation, no limits, no metrics, no tool calls: the price of these is ours to pay.
`python bench/stacks/strong.py PORT DECODER_PORT`.
"""

import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "generated"))

import grpc
import orjson
import uvicorn

from ark_wire import ark_pb2

Send = Callable[[dict[str, Any]], Awaitable[None]]
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
_JSON = [(b"content-type", b"application/json")]
_NO_FINISH = b'},"finish_reason":null}]}\n\n'


class App:
    """The ASGI application."""

    def __init__(self, decoder: str) -> None:
        self._decoder = decoder
        self._call: Any = None

    def _connect(self) -> None:
        """Open the channel, inside the loop that it belongs to."""
        self._channel = grpc.aio.insecure_channel(self._decoder)
        # Messages come as bytes: parsing them here spares a call of a Python function each.
        self._call = self._channel.unary_stream(
            "/inference.Inference/StreamingCall",
            request_serializer=ark_pb2.InferenceRequest.SerializeToString,
        )

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            await _start(send, _JSON)
            await send({"type": "http.response.body", "body": b"{}"})
            return
        if self._call is None:
            self._connect()
        asked = orjson.loads(await _body(receive))
        call = self._call(encode(asked))
        try:
            if asked.get("stream"):
                await _stream(call, asked["model"], send)
            else:
                await _whole(call, asked["model"], send)
        finally:
            call.cancel()


def encode(asked: dict[str, Any]) -> ark_pb2.InferenceRequest:
    """Return the engine's request."""
    request = ark_pb2.InferenceRequest(req_id=uuid.uuid4().hex, model_name=asked["model"])
    inputs, messages = request.inputs, asked["messages"]
    roles, contents = inputs["messages.role"], inputs["messages.content"]
    roles.bytes_list.values.extend([message["role"].encode() for message in messages])
    contents.bytes_list.values.extend([message["content"].encode() for message in messages])
    if "max_tokens" in asked:
        inputs["max_new_tokens"].int64_ = asked["max_tokens"]
    if "temperature" in asked:
        inputs["temperature"].float_ = asked["temperature"]
    return request


async def _stream(call: AsyncIterator[bytes], model: str, send: Send) -> None:
    constant = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    head = b"data: " + orjson.dumps(constant)[:-1] + b',"choices":[{"index":0,"delta":{'
    begun, parse, dumps = False, ark_pb2.InferenceResponse.FromString, orjson.dumps
    async for message in call:
        outputs = parse(message).outputs
        if not begun:
            begun = True
            await _start(send, _EVENTS)
            first = head + b'"role":"assistant","content":""' + _NO_FINISH
            await send({"type": "http.response.body", "body": first, "more_body": True})
        text = outputs["choice.message.content"].bytes_
        if text:
            body = head + b'"content":' + dumps(text.decode()) + _NO_FINISH
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if "choice.finish_reason" in outputs:
            reason = dumps(outputs["choice.finish_reason"].bytes_.decode())
            body = head + b'},"finish_reason":' + reason + b"}]}\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _whole(call: AsyncIterator[bytes], model: str, send: Send) -> None:
    texts, reason = [], "stop"
    async for message in call:
        outputs = ark_pb2.InferenceResponse.FromString(message).outputs
        texts.append(outputs["choice.message.content"].bytes_)
        if "choice.finish_reason" in outputs:
            reason = outputs["choice.finish_reason"].bytes_.decode()
    said = {"role": "assistant", "content": b"".join(texts).decode()}
    answer = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": said, "finish_reason": reason}],
    }
    await _start(send, _JSON)
    await send({"type": "http.response.body", "body": orjson.dumps(answer)})


async def _start(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


if __name__ == "__main__":
    uvicorn.run(
        App(f"127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
