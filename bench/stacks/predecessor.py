"""The stack that this gateway replaces: FastAPI on uvicorn, a grpc.aio channel a request, messages turned into dicts.

`python bench/stacks/predecessor.py PORT DECODER_PORT`.
"""

import json
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "generated"))

import grpc
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from ark_wire import ark_pb2

app = FastAPI()
_DECODER = f"127.0.0.1:{sys.argv[2]}" if len(sys.argv) > 2 else ""
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Message(BaseModel):
    """A turn of a conversation."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """What a client may ask."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def create_chat_completion(asked: ChatRequest) -> Response:
    """Answer a conversation."""
    answer_id, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if asked.stream:
        events = _events(asked, answer_id, created)
        return StreamingResponse(events, media_type="text/event-stream")
    text, reason = "", None
    async for choice in _choices(asked):
        text += choice["message"]["content"]
        reason = choice["finish_reason"] or reason
    said = {"role": "assistant", "content": text}
    return JSONResponse(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": created,
            "model": asked.model,
            "choices": [{"index": 0, "message": said, "finish_reason": reason}],
        }
    )


async def _events(asked: ChatRequest, answer_id: str, created: int) -> AsyncIterator[str]:
    async for choice in _choices(asked):
        chunk = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": asked.model,
            "choices": [
                {
                    "index": choice["index"],
                    "delta": choice["message"],
                    "finish_reason": choice["finish_reason"],
                }
            ],
        }
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


async def _choices(asked: ChatRequest) -> AsyncIterator[dict[str, Any]]:
    async with grpc.aio.insecure_channel(_DECODER, options=_OPTIONS) as channel:
        call = channel.unary_stream(
            "/inference.Inference/StreamingCall",
            request_serializer=ark_pb2.InferenceRequest.SerializeToString,
            response_deserializer=ark_pb2.InferenceResponse.FromString,
        )
        async for response in call(_encode(asked)):
            outputs = {key: _plain(value) for key, value in response.outputs.items()}
            yield {  # noqa: ASYNC119 (that is how it was)
                "index": outputs.get("choice.index", 0),
                "message": {
                    "role": outputs.get("choice.message.role", b"").decode(),
                    "content": outputs.get("choice.message.content", b"").decode(),
                },
                "finish_reason": outputs.get("choice.finish_reason", b"").decode() or None,
            }


def _encode(asked: ChatRequest) -> ark_pb2.InferenceRequest:
    inputs = {
        "messages.role": _texts([message.role for message in asked.messages]),
        "messages.content": _texts([message.content for message in asked.messages]),
    }
    if asked.max_tokens is not None:
        inputs["max_new_tokens"] = ark_pb2.Value(int64_=asked.max_tokens)
    for name in ("temperature", "top_p"):
        if (number := getattr(asked, name)) is not None:
            inputs[name] = ark_pb2.Value(float_=number)
    return ark_pb2.InferenceRequest(
        req_id=uuid.uuid4().hex, model_name=asked.model, inputs=inputs, method="chat"
    )


def _texts(texts: list[str]) -> ark_pb2.Value:
    return ark_pb2.Value(bytes_list=ark_pb2.BytesList(values=[text.encode() for text in texts]))


def _plain(value: ark_pb2.Value) -> Any:
    """Return a value as Python has it."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind == "struct_":
        return {key: _plain(item) for key, item in inner.fields.items()}
    if kind == "value_list":
        return [_plain(item) for item in inner.values]
    return list(inner.values) if kind.endswith("_list") else inner


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
