"""An open stream keeps nothing of what was asked: an answer may last for minutes, and a prompt be long."""

import gc

import pytest
from quart import Request

from ark_trio.api.arrival import Body
from ark_trio.api.exchange import Exchange
from ark_trio.api.headers import RequestHeaders
from ark_trio.api.replies import Reply
from ark_trio.protocol.chat_request import ChatRequest
from ark_trio.protocol.message import Message
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.stack import open_stack
from tests.support.wire import CHAT, chat, post

REQUEST = (ChatRequest, Message, Request, Exchange, RequestHeaders, Body, Reply)


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/"], ids=["looked up", "routed"])
async def test_a_stream_lets_go_of_its_request_once_it_has_begun(path: str):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL, stream=True), path))
            await client.read_until(b'"content":"a"')
            gc.collect()
            kept = [o for o in gc.get_objects() if isinstance(o, REQUEST)]
            assert [type(one).__name__ for one in kept] == []
            await client.stream.aclose()


async def test_no_bytes_of_the_prompt_are_kept_once_the_engine_has_them():
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(chat("a long prompt", model=MODEL, stream=True)))
            await client.read_until(b'"content":"a"')
            gc.collect()
            found = {
                held
                for holder in gc.get_objects()
                for held in gc.get_referents(holder)
                if isinstance(held, bytes) and b"a long prompt" in held
            }
            assert found <= {b"a long prompt"}  # the engine's, which is in this process too
            await client.stream.aclose()
