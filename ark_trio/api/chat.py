"""POST /v1/chat/completions, streaming and not."""

import time
import uuid
from functools import partial

from quart import Blueprint, Response

from ark_trio.api.body import read_json_body
from ark_trio.api.connection import exchange
from ark_trio.api.replies import json_reply
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_request import ChatRequest, parse_chat
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.relay.answer import Steps, fold_answer, stream_answer
from ark_trio.relay.ask import Ask
from ark_trio.rpc.client import Response as ArkResponse
from ark_trio.rpc.mailbox import Mailbox

blueprint = Blueprint("chat", __name__)

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@blueprint.post("/chat/completions")
@blueprint.post("/v1/chat/completions")
async def create_chat_completion() -> Response:
    """Answer a conversation.

    The backend call runs in the request's nursery; what it brings comes back through the mailbox.
    """
    chat = parse_chat(await read_json_body())
    here = exchange.get()
    here.record.model, here.record.stream = chat.model, chat.stream
    mailbox: Mailbox[ArkResponse] = Mailbox()
    ask = Ask(
        model=chat.model,
        encode=partial(encode_chat, chat),
        request_id=here.record.request_id,
    )
    here.nursery.start_soon(here.gateway.run_call, ask, mailbox)
    steps = Steps(mailbox, ResponseDecoder(), here.gateway.settings.limits, here.record)
    if chat.stream:
        return await _stream(chat, steps)
    return await _fold(chat, steps)


async def _stream(chat: ChatRequest, steps: Steps[ArkResponse]) -> Response:
    """Begin a stream once the engine has said something, so that an early failure still gets its status."""
    here = exchange.get()
    keep_alive_s = here.gateway.settings.limits.keep_alive_s
    answer = ChatStream(
        id=_new_id(),
        created=int(time.time()),
        model=chat.model,
        n=chat.n,
        include_usage=chat.include_usage,
        continuous_usage=chat.continuous_usage,
    )
    first = await steps.take(keep_alive_s)
    body = stream_answer(first, steps, answer, here.record, keep_alive_s)
    return Response(body, headers=STREAM_HEADERS)


async def _fold(chat: ChatRequest, steps: Steps[ArkResponse]) -> Response:
    answer = ChatFold(id=_new_id(), created=int(time.time()), model=chat.model, n=chat.n)
    return json_reply(await fold_answer(steps, answer))


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"
