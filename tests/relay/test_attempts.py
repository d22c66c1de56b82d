"""A request that one decoder fails is tried on another, as long as nobody has seen any of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ark_trio.config import FleetSettings, Limits, Settings
from ark_trio.errors import (
    ArkError,
    BadBackend,
    Conflict,
    InternalError,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    Overloaded,
    ShuttingDown,
    Unavailable,
    UnknownModel,
)
from ark_trio.protocol.step import Step
from ark_trio.relay.attempts import Attempts
from ark_trio.rpc.outbox import Outbox
from ark_trio.settings.address import Address
from tests.support.asgi import Client, open_client
from tests.support.fake_engine import (
    MODEL,
    Call,
    FakeDecoder,
    Script,
    failing,
    hang,
    open_fake_decoder,
    saying,
    text,
)
from tests.support.keys import bearing, write_keys
from tests.support.processes import free_port

CHAT = "/v1/chat/completions"


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more}


@asynccontextmanager
async def fleet_of(
    *scripts: Script, limits: Limits | None = None, **fleet: Any
) -> AsyncIterator[tuple[Client, list[FakeDecoder]]]:
    """A gateway that asks decoders with these scripts in turn."""
    async with AsyncExitStack() as stack:
        decoders = [await stack.enter_async_context(open_fake_decoder(each)) for each in scripts]
        settings = Settings(
            decoders=tuple(decoder.address for decoder in decoders),
            fleet=FleetSettings(policy="round_robin", **fleet),
            limits=limits or Limits(),
        )
        yield await stack.enter_async_context(open_client(settings)), decoders


def calls(decoders: list[FakeDecoder]) -> list[int]:
    return [len(decoder.engine.calls) for decoder in decoders]


async def ends_at_once(call: Call, outbox: Outbox) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "script",
    [
        failing(Unavailable("x")),
        failing(InternalError("x")),
        failing(Overloaded("x")),
        failing(UnknownModel("x")),
        ends_at_once,
    ],
    ids=["unavailable", "internal", "overloaded", "unknown-model", "empty"],
)
async def test_what_another_decoder_may_do_better_is_tried_there(script: Script, stream: bool):
    async with fleet_of(script, saying("a")) as (client, decoders):
        answer = await client.ask("POST", CHAT, body(stream=stream))
        assert answer.status == 200
        assert calls(decoders) == [1, 1]


@pytest.mark.parametrize(
    "error",
    [InvalidRequest("x"), NotFound("x"), Conflict("x"), NotImplementedByEngine("x")],
    ids=lambda error: type(error).__name__,
)
async def test_a_clients_fault_is_told_at_once_and_blames_no_decoder(error: ArkError):
    async with fleet_of(failing(error), saying("a"), eject_faults=1) as (client, decoders):
        answer = await client.ask("POST", CHAT, body())
        assert answer.status == error.status
        assert calls(decoders) == [1, 0]
        assert not client.web.gateway.fleet.decoders[0].ejection.count


async def test_unary_calls_are_tried_again_too():
    async with fleet_of(saying("a"), saying("a")) as (client, decoders):
        decoders[1].engine.replies["tokenize"] = {"tokens": [1], "count": 1}
        with trio.fail_after(5):
            # The first one has no such reply, which is against the contract, but an answer.
            answers = [
                await client.ask("POST", "/tokenize", {"model": MODEL, "prompt": "a"})
                for _ in range(2)
            ]
        assert sorted(str(answer.status) for answer in answers) == ["200", "502"]


async def test_a_decoder_is_never_asked_twice_and_the_last_error_is_told():
    async with fleet_of(*[failing(InternalError("x"))] * 3, retries=9) as (client, decoders):
        answer = await client.ask("POST", CHAT, body())
        assert (answer.status, answer.json["error"]["type"]) == (500, "server_error")
        assert calls(decoders) == [1, 1, 1]


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_request_is_tried_on_as_many_others_as_the_settings_say(retries: int):
    scripts = [failing(InternalError("x"))] * 3
    async with fleet_of(*scripts, retries=retries) as (client, decoders):
        assert (await client.ask("POST", CHAT, body())).status == 500
        assert sum(calls(decoders)) == 1 + retries


async def test_the_budget_bounds_all_retries_together():
    scripts = [failing(InternalError("x")), failing(InternalError("x"))]
    async with fleet_of(*scripts, eject_faults=0, retry_percent=50, retries_per_s=0) as (
        client,
        decoders,
    ):
        for _ in range(20):
            assert (await client.ask("POST", CHAT, body())).status == 500
        assert sum(calls(decoders)) == 30


async def test_after_the_decoders_first_word_nothing_is_tried_again():
    async def breaks_off(call: Call, outbox: Outbox) -> None:
        await outbox.put(call.say(text("a")))
        raise InternalError("x")

    async with fleet_of(breaks_off, saying("b")) as (client, decoders):
        answer = await client.ask("POST", CHAT, body(stream=True))
        assert calls(decoders) == [1, 0]
        assert answer.frames[-2]["error"]["type"] == "server_error"


async def test_after_our_first_byte_nothing_is_tried_again():
    go_on = trio.Event()

    async def late(call: Call, outbox: Outbox) -> None:
        await go_on.wait()
        raise InternalError("x")

    limits = Limits(keep_alive_s=0.05)
    async with fleet_of(late, saying("b"), limits=limits) as (client, decoders):
        running = client.start("POST", CHAT, body(stream=True))
        with trio.fail_after(5):
            await running.wait_for(1)
            go_on.set()
            await running.over.wait()
        assert calls(decoders) == [1, 0]
        assert running.frames[-2]["error"]["type"] == "server_error"


async def test_a_client_that_leaves_between_two_tries_leaves_nothing_behind():
    async with fleet_of(failing(InternalError("x")), hang) as (client, decoders):
        running = client.start("POST", CHAT, body(stream=True))
        with trio.fail_after(5):
            while not decoders[1].engine.calls:
                await trio.sleep(0.01)
            running.leave()
            await decoders[1].engine.calls[0].ended.wait()
            await running.over.wait()
        assert [d.in_flight for d in client.web.gateway.fleet.decoders] == [0, 0]
        assert client.web.gateway.admission.running == 0


async def test_a_decoder_that_is_gone_is_not_noticed_by_clients():
    port = free_port()
    async with open_fake_decoder(saying("a")) as stays:
        settings = Settings(
            decoders=(Address(host="127.0.0.1", port=port), stays.address),
            fleet=FleetSettings(policy="round_robin"),
        )
        async with open_client(settings) as client:
            gone, _ = client.web.gateway.fleet.decoders
            with trio.fail_after(5):
                async with open_fake_decoder(saying("a"), port):
                    while not gone.ready:
                        await trio.sleep(0.01)
            for _ in range(10):
                assert (await client.ask("POST", CHAT, body())).status == 200
            assert gone.state(trio.current_time()) == "away"


async def test_who_waits_at_a_decoder_that_is_found_dead_goes_elsewhere():
    async with fleet_of(hang, saying("a"), probe_s=0.1, fall=1) as (client, decoders):
        running = client.start("POST", CHAT, body(stream=True))
        with trio.fail_after(5):
            while not decoders[0].engine.calls:
                await trio.sleep(0.01)
            decoders[0].engine.status = Unavailable("x")
            await running.over.wait()
        assert running.text == "a"
        assert decoders[0].engine.calls[0].how == "cancelled"


@pytest.mark.parametrize("others", [0, 1], ids=["no-other", "none-that-may-be-tried"])
async def test_where_no_other_decoder_may_be_asked_it_goes_on_waiting(others: int):
    go_on = trio.Event()

    async def late(call: Call, outbox: Outbox) -> None:
        await go_on.wait()
        await saying("a")(call, outbox)

    scripts = [late, *[saying("b")] * others]
    async with fleet_of(*scripts, probe_s=0.1, fall=1, retries=0) as (client, decoders):
        running = client.start("POST", CHAT, body(stream=True))
        with trio.fail_after(5):
            while not decoders[0].engine.calls:
                await trio.sleep(0.01)
            decoders[0].engine.status = Unavailable("x")
            while client.web.gateway.fleet.decoders[0].ready:
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            go_on.set()
            await running.over.wait()
        assert running.text == "a"


async def test_without_any_decoder_the_answer_is_immediate():
    """Nothing is awaited but checkpoints: as many turns of the scheduler as a bad request takes, and no time."""
    async with fleet_of(saying("a")) as (client, _):
        for decoder in client.web.gateway.fleet.decoders:
            decoder.judge(Unavailable("x"))
            decoder._see(None)
        began = trio.current_time()
        answer = await client.ask("POST", CHAT, body())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert trio.current_time() - began < 0.1


async def lies(call: Call, outbox: Outbox) -> None:
    """Begins well and ends without a finish reason."""
    await outbox.put(call.say(text("a")))


async def stops(call: Call, outbox: Outbox) -> None:
    await outbox.put(call.say(text("a")))
    await hang(call, outbox)


async def goes_on_after_the_end(call: Call, outbox: Outbox) -> None:
    await outbox.put(call.say(Step(choices=())))
    await outbox.put(call.say(text("a", index=5)))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [lies, stops, hang, goes_on_after_the_end])
async def test_what_is_wrong_with_an_answer_is_the_decoders_fault_when_it_ends(
    script: Script, stream: bool
):
    limits = Limits(first_token_s=1, between_tokens_s=1)
    async with fleet_of(script, limits=limits, eject_faults=2) as (client, _):
        (decoder,) = client.web.gateway.fleet.decoders
        for count in (0, 1):
            await client.ask("POST", CHAT, body(stream=stream))
            assert decoder.ejection.count == count


async def test_of_several_decoders_only_the_one_that_failed_is_blamed():
    async with fleet_of(ends_at_once, hang, eject_faults=1, retries=0) as (client, _):
        answer = await client.ask("POST", "/v1/completions", {"model": MODEL, "prompt": ["a", "b"]})
        assert answer.status == 502
        counts = [decoder.ejection.count for decoder in client.web.gateway.fleet.decoders]
        assert sorted(counts) == [0, 1]


async def test_nobody_is_asked_in_the_place_of_a_request_that_was_ended(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: list[Any] = []

    async def fail_as_all_end(_: Attempts, tried: list[Any], __: Any, sink: Any) -> ArkError:
        asked.append(tried[-1])
        await trio.lowlevel.checkpoint()
        sink.fail(ShuttingDown("x"))
        return Unavailable("y")

    monkeypatch.setattr(Attempts, "_try", fail_as_all_end)
    async with fleet_of(saying("a"), saying("b")) as (client, _):
        answer = await client.ask("POST", CHAT, body())
    assert (answer.status, len(asked)) == (503, 1)


async def test_a_client_that_leaves_blames_nobody():
    async with fleet_of(stops, eject_faults=1) as (client, _):
        running = client.start("POST", CHAT, body(stream=True))
        with trio.fail_after(5):
            await running.wait_for_text("a")
            running.leave()
            await running.over.wait()
        (decoder,) = client.web.gateway.fleet.decoders
        assert not decoder.ejection.count


async def test_a_good_answer_is_counted():
    async with fleet_of(saying("a"), eject_faults=2) as (client, _):
        (decoder,) = client.web.gateway.fleet.decoders
        decoder.judge(BadBackend("x"))
        await client.ask("POST", CHAT, body(stream=True))
        decoder.judge(BadBackend("x"))
        assert not decoder.ejection.count


async def test_sessions_go_where_they_went():
    async with AsyncExitStack() as stack:
        decoders = [
            await stack.enter_async_context(open_fake_decoder(saying("a"))) for _ in range(3)
        ]
        settings = Settings(
            decoders=tuple(decoder.address for decoder in decoders),
            fleet=FleetSettings(policy="session", session_header="x-who"),
        )
        client = await stack.enter_async_context(open_client(settings))
        for _ in range(12):
            await client.ask("POST", CHAT, body(), headers={"x-who": "me"})
        assert sorted(calls(decoders)) == [0, 0, 12]
        for _ in range(40):
            await client.ask("POST", CHAT, body())
        assert 0 not in calls(decoders)


@pytest.mark.parametrize("policy", ["affinity", "session"])
async def test_callers_do_not_find_out_where_anothers_conversation_is(policy: Any, tmp_path: Path):
    """The same words, or the same session, lead each key to a decoder of its own choice, and always to that one."""
    keys = write_keys(tmp_path / "keys", ann={}, bob={})
    async with AsyncExitStack() as stack:
        decoders = [
            await stack.enter_async_context(open_fake_decoder(saying("a"))) for _ in range(2)
        ]
        settings = Settings(
            decoders=tuple(decoder.address for decoder in decoders),
            fleet=FleetSettings(policy=policy, session_header="x-who"),
            keys_file=keys,
        )
        client = await stack.enter_async_context(open_client(settings))

        async def where(key: str, talk: int) -> list[int]:
            before = calls(decoders)
            said = [{"role": "user", "content": f"{talk} " * 200}]
            headers = {**bearing(key), "x-who": str(talk)}
            answer = await client.ask("POST", CHAT, body(messages=said), headers=headers)
            assert answer.status == 200
            return [now - then for now, then in zip(calls(decoders), before, strict=True)]

        of = {key: [await where(key, talk) for talk in range(24)] for key in ("ann", "bob")}
        assert of["ann"] == [await where("ann", talk) for talk in range(24)]
        assert of["ann"] != of["bob"]


async def test_the_engine_is_told_the_name_that_it_knows():
    async with fleet_of(saying("a"), aliases=(f"gpt={MODEL}",)) as (client, decoders):
        answer = await client.ask("POST", CHAT, {**body(), "model": "gpt"})
        assert answer.json["model"] == "gpt"
        assert decoders[0].engine.calls[0].request.model_name == MODEL
        listed = (await client.ask("GET", "/v1/models")).json["data"]
        assert [model["id"] for model in listed] == [MODEL, "gpt"]
