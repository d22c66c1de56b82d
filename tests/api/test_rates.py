"""Rates at the HTTP door: what is charged, what is told, and what becomes of requests that fail or are left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.access.store import LocalStore
from ark_trio.api.rates import spell_duration
from ark_trio.config import Limits
from ark_trio.errors import InternalError, Unavailable
from ark_trio.rpc.outbox import Outbox
from tests.api.test_access import ASK, CHAT, door
from tests.support.asgi import Client, open_client
from tests.support.fake_engine import (
    Call,
    Script,
    failing,
    hang,
    open_fake_decoder,
    saying,
    text,
    totals,
)
from tests.support.keys import bearing, write_keys

PROMPT = 400
"""Tokens that the engine says that it read."""


@asynccontextmanager
async def still_door(
    tmp_path: Path, script: Script | None = None, **keys: dict[str, Any]
) -> AsyncIterator[Client]:
    """A door where no time passes for the rates: nothing refills."""
    async with door(tmp_path, script, **keys) as client:
        stop(client)
        yield client


def stop(client: Client) -> None:
    store = client.web.gateway.store
    assert isinstance(store, LocalStore)
    store.clock = lambda: 0.0


def answering(count: int) -> Script:
    async def script(call: Call, outbox: Outbox) -> None:
        await saying(*["x"] * count)(call, outbox)
        await outbox.put(call.say(totals(PROMPT, count)))

    return script


def spent(client: Client, name: str = "ann") -> int:
    """Tokens that a key has less than a full bucket."""
    store = client.web.gateway.store
    assert isinstance(store, LocalStore)
    verdict, running = store.ledger.look(store.clock())[name]
    assert running == 0
    assert verdict.tokens is not None
    return verdict.tokens.limit - verdict.tokens.remaining


def tokens(limit: int) -> dict[str, Any]:
    return {"tokens_per_minute": limit}


async def test_an_answer_tells_how_the_rates_stand(tmp_path: Path):
    limits = {"requests_per_minute": 60, "tokens_per_minute": 60_000}
    async with still_door(tmp_path, answering(5), ann=limits, bob={}) as client:
        for stream in (False, True):
            body = {**ASK, "max_tokens": 1000, "stream": stream}
            got = await client.ask("POST", CHAT, body, headers=bearing("ann"))
            assert got.status == 200
            assert got.headers["x-ratelimit-limit-requests"] == "60"
            assert got.headers["x-ratelimit-limit-tokens"] == "60000"
            assert got.headers["x-ratelimit-remaining-requests"] == ("58" if stream else "59")
            # What is set aside counts as gone until the answer has ended; what the first used is gone.
            assert 58_000 < int(got.headers["x-ratelimit-remaining-tokens"]) < 59_000
            assert got.headers["x-ratelimit-reset-tokens"].endswith("s")
            assert "retry-after" not in got.headers
        free = await client.ask("POST", CHAT, ASK, headers=bearing("bob"))
        assert not [name for name in free.headers if name.startswith("x-ratelimit")]


async def test_too_many_requests_get_429_with_the_rates_and_when_to_come_back(tmp_path: Path):
    async with still_door(tmp_path, ann={"requests_per_minute": 2}) as client:
        for _ in range(2):
            assert (await client.ask("POST", CHAT, ASK, headers=bearing("ann"))).status == 200
        refused = await client.ask("POST", CHAT, ASK, headers=bearing("ann"))
        assert refused.status == 429
        assert refused.headers["retry-after"] == "30"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"
        error = refused.json["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "requests a minute" in error["message"]
        # Models cost nothing, and others are not concerned.
        assert (await client.ask("GET", "/v1/models", headers=bearing("ann"))).status == 200


async def test_a_burst_cannot_overrun_what_is_set_aside(tmp_path: Path):
    """Each may come to 300 tokens: of 1,000, three run at once, whatever they use in the end."""
    async with still_door(tmp_path, hang, ann=tokens(1000)) as client:
        body = {**ASK, "max_tokens": 290}
        asked = [client.start("POST", CHAT, body, headers=bearing("ann")) for _ in range(20)]
        while sum(exchange.complete for exchange in asked) < 17:
            await trio.sleep(0.001)
        assert client.web.gateway.admission.running == 3
        assert {exchange.status for exchange in asked if exchange.complete} == {429}


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_used_is_charged(tmp_path: Path, stream: bool):
    async with still_door(tmp_path, answering(7), ann=tokens(60_000)) as client:
        body = {**ASK, "max_tokens": 5000, "stream": stream}
        assert (await client.ask("POST", CHAT, body, headers=bearing("ann"))).status == 200
        assert spent(client) == PROMPT + 7


@pytest.mark.parametrize("usage_told", [True, False])
async def test_a_client_that_leaves_is_charged_for_what_was_generated(
    tmp_path: Path, usage_told: bool
):
    async def script(call: Call, outbox: Outbox) -> None:
        for number in range(20):
            await outbox.put(call.say(text("x")))
            if usage_told:
                await outbox.put(call.say(totals(PROMPT, number + 1)))
        await trio.sleep_forever()

    async with still_door(tmp_path, script, ann=tokens(60_000)) as client:
        body = {**ASK, "max_tokens": 5000, "stream": True}
        exchange = client.start("POST", CHAT, body, headers=bearing("ann"))
        await exchange.wait_for_text("x" * 20)
        await trio.sleep(0.02)
        exchange.leave()
        await exchange.over.wait()
        at_least = 20 + (PROMPT if usage_told else 1)
        assert at_least - 5 <= spent(client) <= at_least + 30


async def test_a_client_that_leaves_while_its_prompt_is_read_pays_the_prompt(tmp_path: Path):
    async with still_door(tmp_path, hang, ann=tokens(60_000)) as client:
        body = {**ASK, "messages": [{"role": "user", "content": "word " * 4000}]}
        exchange = client.start("POST", CHAT, body, headers=bearing("ann"))
        while not client.web.gateway.admission.running:
            await trio.sleep(0.001)
        await trio.sleep(0.02)
        exchange.leave()
        await exchange.over.wait()
        assert 3000 < spent(client) < 8000


async def test_a_client_that_leaves_the_line_pays_nothing(tmp_path: Path):
    path = write_keys(tmp_path / "keys", ann=tokens(60_000))
    limits = Limits(max_requests=1)
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings(keys_file=path, limits=limits)) as client:
            stop(client)
            async with client.web.gateway.admission.place():
                exchange = client.start("POST", CHAT, ASK, headers=bearing("ann"))
                while not client.web.gateway.admission.waiting:
                    await trio.sleep(0.001)
                exchange.leave()
                await exchange.over.wait()
            assert spent(client) == 0


@pytest.mark.parametrize("error", [Unavailable("gone"), InternalError("boom")])
async def test_a_failure_before_the_first_token_costs_nothing(tmp_path: Path, error: Exception):
    async with still_door(tmp_path, failing(error), ann=tokens(60_000)) as client:
        got = await client.ask("POST", CHAT, ASK, headers=bearing("ann"))
        assert got.status in (500, 503)
        assert spent(client) == 0


async def test_a_failure_after_it_costs_what_had_come(tmp_path: Path):
    script = saying(*["x"] * 9, then=failing(InternalError("boom")))
    async with still_door(tmp_path, script, ann=tokens(60_000)) as client:
        got = await client.ask("POST", CHAT, {**ASK, "stream": True}, headers=bearing("ann"))
        assert "error" in got.frames[-2]
        assert 9 <= spent(client) <= 20


async def test_several_prompts_are_one_request_and_all_their_tokens(tmp_path: Path):
    limits = {"requests_per_minute": 10, "tokens_per_minute": 60_000}
    async with still_door(tmp_path, answering(3), ann=limits) as client:
        body = {"model": ASK["model"], "prompt": ["a", "b", "c"], "max_tokens": 10}
        got = await client.ask("POST", "/v1/completions", body, headers=bearing("ann"))
        assert got.status == 200
        assert got.headers["x-ratelimit-remaining-requests"] == "9"
        assert spent(client) == 3 * (PROMPT + 3)


async def test_requests_at_once_are_bounded_by_key_and_given_back_when_clients_leave(
    tmp_path: Path,
):
    async with still_door(tmp_path, hang, ann={"concurrent_requests": 2}, bob={}) as client:
        running = [client.start("POST", CHAT, ASK, headers=bearing("ann")) for _ in range(2)]
        while client.web.gateway.admission.running < 2:
            await trio.sleep(0.001)
        refused = await client.ask("POST", CHAT, ASK, headers=bearing("ann"))
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert "requests at once" in refused.json["error"]["message"]
        client.start("POST", CHAT, ASK, headers=bearing("bob"))
        running[0].leave()
        await running[0].over.wait()
        client.start("POST", CHAT, ASK, headers=bearing("ann"))
        with trio.fail_after(2):
            while client.web.gateway.admission.running < 3:
                await trio.sleep(0.001)


async def test_a_tokenizer_s_request_counts_and_its_tokens_do_not(tmp_path: Path):
    limits = {"requests_per_minute": 2, "tokens_per_minute": 1000}
    async with still_door(tmp_path, ann=limits) as client:
        for status in (502, 502, 429):
            got = await client.ask(
                "POST",
                "/tokenize",
                {"model": ASK["model"], "prompt": "a"},
                headers=bearing("ann"),
            )
            assert got.status == status
        assert spent(client) == 0


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (0, "0s"),
        (0.017, "17ms"),
        (0.0001, "0s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9996, "1m0s"),
        (100, "1m40s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3725.25, "1h2m5.25s"),
    ],
)
def test_durations_are_spelled_as_openai_does(seconds: float, spelled: str):
    assert spell_duration(seconds) == spelled


@given(st.floats(0, 1e6))
def test_a_duration_reads_back_to_the_millisecond(seconds: float):
    import re

    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", spell_duration(seconds))
    assert sum(float(number) * units[unit] for number, unit in parts) == pytest.approx(
        seconds, abs=0.00051
    )
