"""When an engine counts as well, and how a decoder waits for its prefiller."""

import socket

import pytest
import trio
from attrs import evolve

from ark_trio.config import Address, EngineSettings, Settings
from ark_trio.engine.health import accepts, is_healthy, wait_for_prefiller
from ark_trio.errors import Unavailable
from ark_trio.rpc.bridge import open_bridge
from ark_trio.systemd import SILENT
from tests.support.processes import engine as running_engine
from tests.support.processes import free_port


def here(port: int) -> Address:
    return Address(host="127.0.0.1", port=port)


@pytest.mark.e2e
def test_our_engine_says_that_it_is_well():
    async def ask(port: int) -> bool:
        async with open_bridge() as bridge:
            return await is_healthy(bridge, here(port))

    with running_engine("prefiller") as process:
        assert trio.run(ask, process.port)
    assert not trio.run(ask, process.port)


async def test_an_engine_that_does_not_speak_is_well_when_its_port_accepts():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with open_bridge() as bridge, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hang_up, listeners)
        assert await is_healthy(bridge, here(port))
        nursery.cancel_scope.cancel()


async def test_a_port_where_nobody_listens_does_not_accept():
    assert not await accepts(here(free_port()))


def waiting(port: int, *, wait_s: float, local_prefill: bool = False) -> Settings:
    engine = EngineSettings(driver="xllm", prefiller_wait_s=wait_s, local_prefill=local_prefill)
    return Settings(prefillers=(here(port),), engine=engine)


async def test_a_decoder_waits_until_a_prefiller_is_there():
    port = free_port()

    async def come_later() -> None:
        await trio.sleep(0.7)
        with socket.create_server(("127.0.0.1", port)):
            await trio.sleep(5)

    async with open_bridge() as bridge, trio.open_nursery() as nursery:
        nursery.start_soon(come_later)
        began = trio.current_time()
        await wait_for_prefiller(bridge, waiting(port, wait_s=10), SILENT)
        assert 0.5 < trio.current_time() - began < 5
        nursery.cancel_scope.cancel()


async def test_it_waits_no_longer_than_it_is_told():
    async with open_bridge() as bridge:
        with pytest.raises(Unavailable, match="no prefiller is healthy"):
            await wait_for_prefiller(bridge, waiting(free_port(), wait_s=0.3), SILENT)


@pytest.mark.parametrize(
    "settings",
    [
        waiting(1, wait_s=0),
        waiting(1, wait_s=9, local_prefill=True),
        evolve(waiting(1, wait_s=9), prefillers=()),
    ],
    ids=["no wait", "it can prefill itself", "it has none"],
)
async def test_there_is_nothing_to_wait_for(settings):
    async with open_bridge() as bridge:
        await wait_for_prefiller(bridge, settings, SILENT)
