"""An engine that says very much beside its calls is left, and nobody's stream waits for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from struct import pack

import pytest
import trio
from structlog.testing import capture_logs

from ark_trio.config import FleetSettings, Settings
from ark_trio.rpc.connection import MAX_CONTROL_PER_S
from ark_trio.rpc.frames import count_control
from ark_trio.settings.address import Address
from tests.support.asgi import open_client
from tests.support.fake_engine import MODEL, open_fake_decoder, saying

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return pack(">BHBBI", 0, len(payload), kind, flags, 0) + payload


SETTINGS, PING, UNKNOWN = frame(4), frame(6, b"12345678"), frame(0xBE, b"x")


@asynccontextmanager
async def flooding(said: bytes) -> AsyncIterator[Address]:
    """A server that says nothing else, for ever."""

    async def flood(stream: trio.SocketStream) -> None:
        try:
            while True:
                await stream.send_all(said)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, flood, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield Address(host="127.0.0.1", port=listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [SETTINGS, PING, UNKNOWN], ids=["settings", "pings", "unknown"])
async def test_a_flood_ends_its_connection_and_holds_up_nobody(kind: bytes):
    async with open_fake_decoder(saying("a")) as good, flooding(SETTINGS + kind * 2000) as bad:
        settings = Settings(decoders=(bad, good.address), fleet=FleetSettings(policy="round_robin"))
        with capture_logs() as logs:
            async with open_client(settings) as client:
                slowest = 0.0
                for _ in range(40):
                    began = trio.current_time()
                    assert (await client.ask("POST", CHAT, ASK)).status == 200
                    slowest = max(slowest, trio.current_time() - began)
                    await trio.sleep(0.02)
                assert slowest < 0.2
                assert not client.web.gateway.fleet.decoders[0].ready
        assert any(line["event"] == "engine_floods" for line in logs)


def test_only_what_belongs_to_no_call_is_counted():
    headers, window, data = frame(1, b"x" * 20), frame(8, b"0000"), frame(0, b"x", flags=1)
    assert count_control(b"") == count_control(headers + window + data) == 0
    assert count_control(SETTINGS + headers + PING + window + UNKNOWN + data + frame(7)) == 4
    assert count_control(PING * MAX_CONTROL_PER_S) == MAX_CONTROL_PER_S
