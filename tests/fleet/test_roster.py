"""New settings change the fleet and touch no stream."""

import time
from contextlib import AsyncExitStack

import pytest
import trio
from attrs import evolve

from ark_trio.config import FleetSettings, GrpcSettings, Limits, Settings
from ark_trio.errors import ConfigError
from ark_trio.fleet.plan import plan_of
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.reading import take_reading
from ark_trio.relay.status import take_status
from ark_trio.settings.address import Address
from ark_trio.tls import serve_context
from tests.support.asgi import open_client
from tests.support.certificates import Authority
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying

CHAT = "/v1/chat/completions"


def body() -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


async def test_a_decoder_that_is_struck_off_finishes_its_streams_and_then_closes():
    go_on = trio.Event()

    async def wait(*_: object) -> None:
        await go_on.wait()

    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(open_fake_decoder(saying("old", then=wait)))
        new = await stack.enter_async_context(open_fake_decoder(saying("new")))
        client = await stack.enter_async_context(open_client(old.settings()))
        gateway = client.web.gateway
        running = client.start("POST", CHAT, body())
        with trio.fail_after(5):
            await running.wait_for_text("old")
            gateway.apply(new.settings())
            while not gateway.fleet.ready:
                await trio.sleep(0.01)
            assert (await client.ask("POST", CHAT, body())).text == "new"
            assert len(old.server._grpc._connections) == 1
            assert old.engine.busy == 1
            go_on.set()
            await running.over.wait()
            while old.server._grpc._connections:
                await trio.sleep(0.01)
        assert old.engine.calls[0].how == "finished"
        assert running.text == "old"


async def test_a_decoder_that_comes_back_while_it_drains_is_told_of_once_and_as_it_is():
    """As names that flap have it: what it has from before goes on, and what is new goes there again."""
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_client(decoder.settings()) as client:
            gateway = client.web.gateway
            streams = [client.start("POST", CHAT, body())]
            with trio.fail_after(5):
                for _ in range(3):
                    await streams[-1].wait_for_text("a")
                    gateway.apply(Settings(decoders=(Address(host="127.0.0.1", port=1),)))
                    gateway.apply(decoder.settings())
                    while not gateway.fleet.ready:
                        await trio.sleep(0.01)
                    streams.append(client.start("POST", CHAT, body()))
                await streams[-1].wait_for_text("a")
            (told,) = take_status(gateway)["decoders"][:1]
            assert (told["state"], told["running"]) == ("ready", 4)
            assert [each["decoder"] for each in take_status(gateway)["decoders"]].count(
                str(decoder.address)
            ) == 1
            running = take_reading(gateway)["ark_decoder_requests_running"]
            assert running == [((str(decoder.address),), 4)]
            with trio.fail_after(5):
                for stream in streams:
                    stream.leave()
                    await stream.over.wait()
                while gateway.fleet.leaving:
                    await trio.sleep(0.01)
            assert take_reading(gateway)["ark_decoder_requests_running"] == [
                ((str(decoder.address),), 0)
            ]


async def test_two_thousand_decoders_are_put_in_order_without_a_stall():
    """Each new answer of a name server puts all of them in order."""
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings()) as client:
            hosts = tuple(f"127.9.{number // 250}.{number % 250 + 1}" for number in range(2000))
            plan = plan_of(Settings(decoders=tuple(Address(host=each, port=1) for each in hosts)))
            roster = client.web.gateway.roster
            roster.apply(plan)
            began = time.process_time()
            roster._settle(plan)
            assert time.process_time() - began < 0.1
            assert [each.address.host for each in roster.fleet.decoders] == [*hosts]


async def test_a_decoder_that_stays_keeps_its_connection():
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            await client.ask("POST", CHAT, body())
            (connection,) = decoder.server._grpc._connections
            client.web.gateway.apply(decoder.settings(limits=Limits(max_waiting=0)))
            await client.ask("POST", CHAT, body())
            assert decoder.server._grpc._connections == {connection}


async def test_new_limits_hold_for_new_requests():
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_client(decoder.settings()) as client:
            running = client.start("POST", CHAT, body())
            with trio.fail_after(5):
                await running.wait_for_text("a")
                limits = Limits(max_requests=1, max_waiting=0)
                client.web.gateway.apply(evolve(client.web.gateway.settings, limits=limits))
                assert (await client.ask("POST", CHAT, body())).status == 429
                assert not running.over.is_set()


async def until(gateway: Gateway, *, ready: bool) -> None:
    while gateway.fleet.ready is not ready:
        await trio.sleep(0.01)


async def test_new_certificates_count_for_connections_to_come_and_touch_none_that_lives(tmp_path):
    good, other = (Authority(tmp_path / name) for name in ("good", "other"))
    served = serve_context(GrpcSettings(tls=True, cert=good.issue("engine", "localhost")))
    async with open_fake_decoder(saying("a"), tls=served) as decoder:
        settings = Settings(
            decoders=(Address(host="localhost", port=decoder.address.port),),
            grpc=GrpcSettings(tls=True, ca=good.file),
            fleet=FleetSettings(probe_s=0.1),
        )
        async with open_client(settings) as client:
            gateway = client.web.gateway
            with trio.fail_after(10):
                await until(gateway, ready=True)
                gateway.apply(evolve(settings, grpc=GrpcSettings(tls=True, ca=other.file)))
                (connection,) = decoder.server._grpc._connections
                assert (await client.ask("POST", CHAT, body())).status == 200
                assert decoder.server._grpc._connections == {connection}
                connection.connection.close()
                await until(gateway, ready=False)
                gateway.apply(settings)
                await until(gateway, ready=True)


async def test_certificates_that_can_not_be_read_change_nothing(tmp_path):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            gateway = client.web.gateway
            before = gateway.settings
            bad = evolve(before, grpc=GrpcSettings(tls=True, ca=tmp_path / "none"), decoders=())
            with pytest.raises(ConfigError):
                gateway.apply(bad)
            assert gateway.settings is before
            assert len(gateway.fleet.decoders) == 1
