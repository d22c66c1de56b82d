"""What goes the short way follows the answer's head, whatever the engine says first."""

import orjson
import pytest
import trio
import trio.testing

from ark_trio.protocol.step import Step
from ark_trio.rpc.outbox import Outbox
from tests.support.fake_engine import (
    MODEL,
    Call,
    Script,
    finish,
    open_fake_decoder,
    text,
    totals,
)
from tests.support.stack import open_stack
from tests.support.wire import chat, post

FIRST = {"nothing": text(""), "totals": totals(3, 0), "half a tag": text("<thi")}
PATHS = {
    "/v1/chat/completions": chat("hi", model=MODEL),
    "/v1/completions": orjson.dumps({"model": MODEL, "prompt": "hi", "stream": True}),
}
WAYS = {"plain": "", "by-h11": "connection: keep-alive, x\r\n"}


def beginning_with(first: Step) -> Script:
    async def script(call: Call, outbox: Outbox) -> None:
        for step in (first, text("a"), finish(), totals(3, 1)):
            await outbox.put(call.say(step))
            await trio.sleep(1)

    return script


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("first", FIRST)
async def test_an_answer_s_head_is_first_also_where_the_engine_s_first_message_adds_nothing(
    first: str, path: str, way: str, autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(beginning_with(FIRST[first])) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(post(PATHS[path], path, headers=WAYS[way]))
            await client.read_until(b"[DONE]")
            assert client.received.startswith(b"HTTP/1.1 200 ")
            await client.stream.aclose()
