"""Whose request it is, and what they may use: at the HTTP door."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import evolve
from structlog.testing import capture_logs

from ark_trio.config import HttpSettings, Limits
from ark_trio.errors import ConfigError
from ark_trio.relay.gateway import open_gateway
from ark_trio.rpc.outbox import Outbox
from tests.support.asgi import Client, Exchange, open_client
from tests.support.fake_engine import MODEL, Call, Script, hang, open_fake_decoder, saying
from tests.support.keys import bearing, write_keys
from tests.support.stack import open_stack

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def door(
    tmp_path: Path, script: Script | None = None, **keys: dict[str, Any]
) -> AsyncIterator[Client]:
    path = write_keys(tmp_path / "keys", **keys)
    async with open_fake_decoder(script or saying("hello")) as decoder:
        async with open_client(decoder.settings(keys_file=path)) as client:
            yield client


def assert_refused(exchange: Exchange, said: str) -> None:
    assert exchange.status == 401
    assert exchange.headers["www-authenticate"].startswith("Bearer")
    error = exchange.json["error"]
    assert error["type"] == "authentication_error"
    assert error["code"] == "invalid_api_key"
    assert said in error["message"]
    assert "sk-" not in error["message"]


async def test_a_key_opens_the_door(tmp_path: Path):
    async with door(tmp_path, ann={}) as client:
        for headers in (bearing("ann"), {"Authorization": "bearer  sk-ann "}):
            assert (await client.ask("POST", CHAT, ASK, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "There is no API key."),
        ({"authorization": ""}, "There is no API key"),
        ({"authorization": "Bearer"}, "There is no API key in the Authorization header"),
        ({"authorization": "Bearer "}, "There is no API key in the Authorization header"),
        ({"authorization": "Basic sk-ann"}, "There is no API key in the Authorization header"),
        ({"authorization": "sk-ann"}, "There is no API key in the Authorization header"),
        ({"authorization": "Bearer sk-bob"}, "not known"),
        ({"authorization": "Bearer sk-ann,sk-ann"}, "not known"),
        ({"authorization": "Bearer \xff"}, "not known"),
        ({"authorization": "Bearer sk-old"}, "has expired"),
        (
            {"authorization": "Bearer sk-ann", "Authorization": "Bearer sk-ann"},
            "more than one API key",
        ),
    ],
)
async def test_without_a_good_key_nothing_is_answered(
    tmp_path: Path, headers: dict[str, str], said: str
):
    async with door(tmp_path, ann={}, old={"expires": "2020-01-01"}) as client:
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/no/such/route")):
            assert_refused(await client.ask(method, path, headers=headers), said)


async def test_a_bad_key_is_refused_before_the_body_has_come(tmp_path: Path):
    async with door(tmp_path, ann={}) as client:
        exchange = client.start("POST", CHAT, {}, headers=bearing("bob"), whole=False)
        with trio.fail_after(2):
            while not exchange.complete:
                await trio.sleep(0.01)
        assert_refused(exchange, "not known")


async def test_health_needs_no_key(tmp_path: Path):
    async with door(tmp_path, ann={}) as client:
        for path in ("/livez", "/readyz", "/health"):
            assert (await client.ask("GET", path)).status == 200


async def test_a_browsers_question_needs_no_key_and_its_page_may_read_the_refusal(tmp_path: Path):
    path = write_keys(tmp_path / "keys", ann={})
    http = HttpSettings(cors_origins=("https://a",))
    async with open_fake_decoder(saying("x")) as decoder:
        async with open_client(decoder.settings(keys_file=path, http=http)) as client:
            headers = {"origin": "https://a", "access-control-request-method": "POST"}
            asked = await client.ask("OPTIONS", CHAT, headers=headers)
            assert asked.status == 204
            told = await client.ask("POST", CHAT, ASK, headers={"origin": "https://a"})
            assert_refused(told, "no API key")
            assert told.headers["access-control-allow-origin"] == "https://a"
            assert "x-ratelimit-remaining-tokens" in told.headers["access-control-expose-headers"]


async def test_a_model_that_the_key_is_not_for_is_forbidden_on_every_route(tmp_path: Path):
    bodies = {
        CHAT: ASK,
        "/v1/completions": {"model": MODEL, "prompt": ["a", "b"]},
        "/tokenize": {"model": MODEL, "prompt": "a"},
        "/detokenize": {"model": MODEL, "tokens": [1]},
    }
    async with door(tmp_path, ann={"models": ["other"]}) as client:
        routes = {
            rule.rule for rule in client.web.url_map.iter_rules() if "POST" in (rule.methods or ())
        }
        assert {route.removeprefix("/v1") for route in routes} == {
            path.removeprefix("/v1") for path in bodies
        }
        for path, body in bodies.items():
            exchange = await client.ask("POST", path, body, headers=bearing("ann"))
            assert exchange.status == 403, path
            error = exchange.json["error"]
            assert (error["type"], error["param"]) == ("permission_error", "model")


async def test_models_lists_what_the_key_may_use(tmp_path: Path):
    async with door(tmp_path, ann={"models": [MODEL, "gone"]}, bob={"models": ["x"]}) as client:

        async def seen(name: str) -> list[str]:
            listed = await client.ask("GET", "/v1/models", headers=bearing(name))
            return [model["id"] for model in listed.json["data"]]

        assert await seen("ann") == [MODEL]
        assert await seen("bob") == []
        one = await client.ask("GET", f"/v1/models/{MODEL}", headers=bearing("bob"))
        assert one.status == 404
        # Nor does the refusal of one that is not served tell of others.
        for path, body in ((f"/v1/models/{MODEL}", None), (CHAT, {**ASK, "model": "x"})):
            method = "GET" if body is None else "POST"
            told = await client.ask(method, path, body, headers=bearing("bob"))
            assert told.status == 404
            assert MODEL not in told.json["error"]["message"].partition("served here")[2]


async def test_the_log_names_whose_request_it_was_and_never_the_key(tmp_path: Path):
    with capture_logs() as lines:
        async with door(tmp_path, ann={}) as client:
            await client.ask("POST", CHAT, ASK, headers=bearing("ann"))
            await client.ask("POST", CHAT, ASK, headers=bearing("bob"))
    ends = [line for line in lines if line["event"] == "request_ended"]
    assert [(line["key"], line["outcome"]) for line in ends] == [
        ("ann", "completed"),
        (None, "not_authenticated"),
    ]
    assert "sk-" not in repr(lines)


async def test_a_reload_revokes_admits_and_touches_nothing_that_runs(tmp_path: Path):
    path = write_keys(tmp_path / "keys", ann={})
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(keys_file=path)) as stack:
            running = await post_chat(stack, "ann")
            while not decoder.engine.busy:
                await trio.sleep(0.01)

            write_keys(path, bob={})
            await reload(stack, "settings_reloaded")
            assert await status_of(stack, "ann") == 401
            assert await status_of(stack, "bob") == 200
            assert decoder.engine.busy == 1

            path.write_text("{")
            await reload(stack, "reload_refused")
            assert await status_of(stack, "bob") == 200
            await running.stream.aclose()


async def post_chat(stack: Any, name: str) -> Any:
    from tests.support.wire import chat, post

    client = await stack.connect()
    head, rest = post(chat("hi", model=MODEL)).split(b"\r\n", 1)
    await client.send(head + f"\r\nauthorization: Bearer sk-{name}\r\n".encode() + rest)
    return client


async def status_of(stack: Any, name: str) -> int:
    client = await stack.connect()
    await client.send(
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        + f"authorization: Bearer sk-{name}\r\n\r\n".encode()
    )
    await client.read_to_end()
    await client.stream.aclose()
    return int(client.status)


async def reload(stack: Any, event: str) -> None:
    before = len(stack.log)
    await stack.signals.send(signal.SIGHUP)
    with trio.fail_after(2):
        while event not in [line["event"] for line in stack.log[before:]]:
            await trio.sleep(0.01)


async def test_a_bad_file_is_a_line_and_not_a_group_of_exceptions(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text("{")
    async with open_fake_decoder(hang) as decoder:
        with pytest.raises(ConfigError, match="line 1"):
            async with open_gateway(decoder.settings(keys_file=path)):
                raise AssertionError


async def test_places_go_to_keys_in_turn_and_to_batch_last(tmp_path: Path):
    """What the key says and what the request says of its hurry both reach the line."""
    path = write_keys(tmp_path / "keys", ann={}, bob={}, night={"priority": "batch"})
    limits = Limits(max_requests=1, max_waiting=9)
    all_there = trio.Event()

    async def script(call: Call, outbox: Outbox) -> None:
        await all_there.wait()
        await saying("x")(call, outbox)

    async with open_fake_decoder(script) as decoder:
        async with open_client(decoder.settings(keys_file=path, limits=limits)) as client:
            admission = client.web.gateway.admission
            ended: list[str] = []

            async def ask(name: str, key: str, **more: object) -> None:
                exchange = await client.ask("POST", CHAT, {**ASK, **more}, headers=bearing(key))
                assert exchange.status == 200
                ended.append(name)

            async with trio.open_nursery() as nursery:
                for number, (name, key, more) in enumerate(
                    [
                        ("runs", "ann", {}),
                        ("batch key", "night", {}),
                        ("flex", "ann", {"service_tier": "flex"}),
                        ("late", "bob", {"priority": 1}),
                        ("ann", "ann", {}),
                        ("ann again", "ann", {}),
                        ("bob", "bob", {}),
                    ]
                ):
                    nursery.start_soon(partial(ask, name, key, **cast(dict[str, object], more)))
                    while admission.running + admission.waiting <= number:
                        await trio.sleep(0.0005)
                all_there.set()
            assert ended[:4] == ["runs", "ann", "bob", "ann again"]
            assert set(ended[4:]) == {"batch key", "flex", "late"}
            assert admission.by_key() == {}


async def test_a_reload_of_limits_lets_in_who_waits_and_loses_nobody(tmp_path: Path):
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings(limits=Limits(max_requests=1, max_waiting=3))
        async with open_stack(settings) as stack:
            clients = [await post_chat(stack, "nobody") for _ in range(4)]
            admission = stack.gateway.admission
            with trio.fail_after(2):
                while admission.running + admission.waiting < 4:
                    await trio.sleep(0.01)
            for places, line in ((3, 0), (1, 0), (4, 2)):
                limits = Limits(max_requests=places, max_waiting=line)
                stack.server.reload = partial(evolve, settings, limits=limits)
                await reload(stack, "settings_reloaded")
                await trio.sleep(0.05)
                running = {3: 3, 1: 3, 4: 4}[places]  # who runs goes on, whatever is allowed now
                assert (admission.running, admission.waiting) == (running, 4 - running)
                assert decoder.engine.busy == running
            for client in clients:
                await client.stream.aclose()


async def test_who_waits_too_long_gets_429(tmp_path: Path):
    limits = Limits(max_requests=1, max_waiting=9, max_wait_s=0.05)
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings(limits=limits)) as client:
            client.start("POST", CHAT, ASK)
            while not client.web.gateway.admission.running:
                await trio.sleep(0.001)
            refused = await client.ask("POST", CHAT, ASK)
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
            assert client.web.gateway.admission.waiting == 0
