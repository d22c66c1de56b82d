"""The census counts what a request holds while it runs, and nothing of it afterwards."""

import signal

import trio

from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.stack import Stack, open_stack
from tests.support.wire import chat, post

HELD = ("calls", "running", "leases", "grpc_streams")


async def census(stack: Stack) -> dict[str, int]:
    await stack.signals.send(signal.SIGUSR1)
    await trio.sleep(0.01)
    return next(e for e in reversed(stack.log) if e["event"] == "gateway_census")


async def test_a_running_request_is_counted_and_then_no_longer(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            before = await census(stack)
            assert [before[key] for key in HELD] == [0, 0, 0, 0]
            client = await stack.connect()
            await client.send(post(chat("hi", model=MODEL)))
            await client.read_until(b'"content":"a"')
            during = await census(stack)
            assert [during[key] for key in HELD] == [1, 1, 1, 1]
            assert during["tasks"] > before["tasks"]
            assert during["descriptors"] > before["descriptors"]
            assert during["resident_bytes"] > 10 << 20
            await client.stream.aclose()
            await trio.sleep(0.1)
            after = await census(stack)
            kept = [*HELD, "tasks"]
            assert [after[key] for key in kept] == [before[key] for key in kept]
