"""Who may see the gateway as a whole, and what /admin/status tells."""

from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from ark_trio.access.key import Key, digest_of, new_secret
from ark_trio.access.key_file import key_line
from ark_trio.api.admin import may_ask
from ark_trio.api.web import build_admin_web
from ark_trio.config import Bind, HttpSettings, Limits, LogSettings, Settings
from tests.support.asgi import Client, open_client
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying

PATHS = ("/metrics", "/admin/status")
HERE = {"host": "127.0.0.1:18080"}
CHAT = "/v1/chat/completions"


def scope(client: tuple[str, int] | None = ("127.0.0.1", 9), **headers: str) -> dict[str, Any]:
    sent = {"host": "localhost:18080", **headers}
    return {
        "client": client,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in sent.items()],
    }


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:18080", "[::1]:18080"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_callers_on_this_host_may_ask(peer: str, host: str):
    assert may_ask(scope((peer, 9), host=host), Settings())


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "2001:db8::1", "0.0.0.0"]
)
def test_callers_elsewhere_may_not(peer: str):
    assert not may_ask(scope((peer, 9)), Settings(insecure=True))


@pytest.mark.parametrize(
    "header",
    ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via", "cf_connecting_ip"],
)
def test_what_a_proxy_on_this_host_passes_on_is_not_from_here(header: str):
    assert not may_ask(scope(("127.0.0.1", 9), **{header: "127.0.0.1"}), Settings())


def test_behind_a_declared_proxy_nobody_is_from_here():
    assert not may_ask(scope(), Settings(http=HttpSettings(root_path="/ai")))


def test_a_page_in_a_browser_here_may_not():
    assert not may_ask(scope(origin="https://evil.example"), Settings())
    assert not may_ask(scope(host="rebound.evil.example:18080"), Settings())
    assert not may_ask(scope(host=""), Settings())


def test_a_unix_socket_is_a_proxys_door_but_not_the_admins_one():
    assert not may_ask(scope(None), Settings())
    assert may_ask(scope(None), Settings(admin_bind=Bind(path=Path("/run/admin"))))


def test_at_the_admins_door_others_need_insecure():
    open_door = Settings(admin_bind=Bind(host="0.0.0.0", port=1))
    assert may_ask(scope(), open_door)
    assert not may_ask(scope(("10.0.0.1", 9)), open_door)
    assert may_ask(scope(("10.0.0.1", 9)), evolve(open_door, insecure=True))


@pytest.mark.parametrize("path", PATHS)
async def test_others_get_a_403_that_tells_nothing(path: str):
    async with open_client(Settings()) as client:
        answer = await client.ask("GET", path, headers={**HERE, "x-forwarded-for": "127.0.0.1"})
    assert answer.status == 403
    assert answer.json["error"]["type"] == "permission_error"


@pytest.mark.parametrize("path", PATHS)
async def test_with_a_door_of_its_own_the_first_has_no_such_route(path: str):
    settings = Settings(admin_bind=Bind(host="127.0.0.1", port=1))
    async with open_client(settings) as client:
        assert (await client.ask("GET", path, headers=HERE)).status == 404
        second = Client(build_admin_web(client.web.gateway), client.nursery)
        assert (await second.ask("GET", path, headers=HERE)).status == 200
        assert (await second.ask("GET", "/readyz", headers=HERE)).status == 503
        assert (await second.ask("POST", CHAT, {}, headers=HERE)).status == 404


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    secrets = {name: new_secret() for name in ("boss", "user")}
    path = tmp_path / "keys"
    path.write_text(
        "\n".join(
            key_line(Key(name=name, sha256=digest_of(secret), admin=name == "boss"))
            for name, secret in secrets.items()
        )
    )
    return path, secrets


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_with_the_admin_flag_is_let_in_from_anywhere_and_no_other(keys, path: str):
    file, secrets = keys
    async with open_client(Settings(keys_file=file)) as client:

        async def status(*, key: str | None, forwarded: bool) -> int | None:
            headers = dict(HERE)
            if forwarded:
                headers["x-forwarded-for"] = "203.0.113.9"
            if key is not None:
                headers["authorization"] = f"Bearer {key}"
            return (await client.ask("GET", path, headers=headers)).status

        assert await status(key=secrets["boss"], forwarded=True) == 200
        assert await status(key=secrets["user"], forwarded=True) == 403
        assert await status(key=secrets["user"], forwarded=False) == 403
        assert await status(key="wrong", forwarded=False) == 401
        assert await status(key=None, forwarded=True) == 403
        assert await status(key=None, forwarded=False) == 200


async def test_the_status_tells_decoders_queue_streams_rates_tasks_and_build():
    async with open_fake_decoder(saying("a", "b", then=hang)) as decoder:
        async with open_client(decoder.settings()) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
            streams = [client.start("POST", CHAT, body, headers={"x-request-id": "mine"})]
            await streams[0].wait_for_text("ab")
            await trio.sleep(0.1)
            status = (await client.ask("GET", "/admin/status", headers=HERE)).json
    (worker,) = status["workers"]
    assert worker["state"] == "serving"
    assert worker["tasks"] > 3
    assert status["queue"] == {
        "running": 1,
        "waiting": 0,
        "max_running": 4096,
        "max_waiting": 256,
    }
    assert status["keys"] == [{"key": None, "running": 1, "waiting": 0}]
    (found,) = status["decoders"]
    expected = {"decoder": str(decoder.address), "state": "ready", "models": [MODEL], "running": 1}
    assert {name: found[name] for name in expected} == expected
    (stream,) = status["streams"]
    assert 0.1 <= stream.pop("age_s") < 5
    assert stream == {
        "worker": 1,
        "request_id": "mine",
        "key": None,
        "model": MODEL,
        "decoder": str(decoder.address),
        "phase": "decode",
        "stream": True,
        "tokens": 2,
        "retries": 0,
    }
    assert status["rates"]["generated_tokens"] > 0
    assert status["version"]


async def test_the_status_names_clients_only_where_the_settings_want_it():
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings(log=LogSettings(addresses=True))
        async with open_client(settings) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            client.start("POST", CHAT, body)
            while not decoder.engine.calls:
                await trio.sleep(0.01)
            status = (await client.ask("GET", "/admin/status", headers=HERE)).json
    assert [stream["client"] for stream in status["streams"]] == ["127.0.0.1"]


async def test_the_status_tells_what_each_key_has_running_and_waiting(keys):
    file, secrets = keys
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings(keys_file=file, limits=Limits(max_requests=1))
        async with open_client(settings) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            for name in ("boss", "user", "user"):
                client.start(
                    "POST", CHAT, body, headers={"authorization": f"Bearer {secrets[name]}"}
                )
                await trio.sleep(0.1)
            status = (await client.ask("GET", "/admin/status", headers=HERE)).json
    assert sorted(status["keys"], key=lambda each: each["key"]) == [
        {"key": "boss", "running": 1, "waiting": 0},
        {"key": "user", "running": 0, "waiting": 2},
    ]
    assert [stream["key"] for stream in status["streams"]] == ["boss", "user", "user"]
    assert secrets["user"] not in repr(status)
