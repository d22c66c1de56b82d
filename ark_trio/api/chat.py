"""POST /v1/chat/completions, streaming and not."""

import time
from functools import partial

from ark_trio.api.body import read_json
from ark_trio.api.calls import (
    ask_for,
    note_request,
    open_steps,
    reading_for,
    reply_with_stream,
    reply_with_whole,
)
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply
from ark_trio.api.routes import Routes
from ark_trio.ids import new_id
from ark_trio.protocol.answer_text import AnswerDecoder
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.callers_words import callers_names
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_fold import ChatFold
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.prefix import conversation_key, conversation_tokens
from ark_trio.relay.whole import Whole

routes = Routes()


@routes.post("/chat/completions", "/v1/chat/completions")
async def create_chat_completion(here: Exchange) -> Reply:
    """Answer a conversation.

    The call for a stream runs in the request's nursery, and what it brings comes back through its mailbox.
    """
    chat = await read_json(here, parse_chat)
    names = partial(callers_names, chat.params, PARAMETERS)
    note_request(here, chat.model, chat.unknown, stream=chat.stream, names=names)
    decoder = AnswerDecoder(reading_for(here, chat.model, chat.reading))
    ask = ask_for(
        here,
        chat.model,
        partial(encode_chat, chat),
        batch=chat.batch,
        key=conversation_key(chat.messages),
        prompt_tokens=conversation_tokens(chat.messages),
        max_tokens=chat.max_tokens,
    )
    answer_id, created = f"chatcmpl-{new_id()}", int(time.time())
    if not chat.stream:
        fold = ChatFold(
            id=answer_id, created=created, model=chat.model, n=chat.n, functions=chat.functions
        )
        whole = Whole(decoder, fold, here.gateway.settings.limits, here.record)
        return await reply_with_whole(here, ask, whole)
    steps = await open_steps(here, ask, decoder)
    answer = ChatStream(
        id=answer_id,
        created=created,
        model=chat.model,
        n=chat.n,
        include_usage=chat.include_usage,
        continuous_usage=chat.continuous_usage,
        functions=chat.functions,
    )
    return await reply_with_stream(here, steps, answer)
