"""Models, health, and what unknown routes, wrong methods and bad bodies get: JSON, always."""

import pytest
import trio

from ark_trio.config import Limits, Settings
from ark_trio.errors import NotImplementedByEngine
from tests.support.asgi import open_client
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.wire_engine import WireCall, open_wire_engine

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_models_are_those_of_the_decoders_with_a_stable_created(prefix: str):
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings()) as client:
            first = (await client.ask("GET", f"{prefix}/models")).json
            await trio.sleep(1.1)
            second = (await client.ask("GET", f"{prefix}/models")).json
            one = (await client.ask("GET", f"{prefix}/models/{MODEL}")).json
    assert first == second
    assert first["object"] == "list"
    (model,) = first["data"]
    assert model == one
    assert (model["id"], model["object"], model["max_model_len"]) == (MODEL, "model", 4096)
    assert set(model) >= {"id", "object", "created", "owned_by", "root", "parent", "permission"}


async def test_an_unknown_model_is_a_404_with_its_code():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("GET", "/v1/models/org/other")
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"


async def test_a_decoder_that_cannot_say_serves_the_configured_models():
    status = NotImplementedByEngine("no Control here")
    async with open_fake_decoder(hang, status=status) as decoder:
        async with open_client(decoder.settings(models=("a", "b"))) as client:
            assert [m["id"] for m in (await client.ask("GET", "/v1/models")).json["data"]] == [
                "a",
                "b",
            ]


async def test_health_tells_life_readiness_and_drain_apart():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        assert (await client.ask("GET", "/livez")).status == 200
        assert (await client.ask("GET", "/health")).status == 200
        assert (await client.ask("GET", "/readyz")).status == 200
        client.web.gateway.drain()
        draining = await client.ask("GET", "/readyz")
        assert (draining.status, draining.json) == (503, {"status": "draining"})
        assert (await client.ask("GET", "/livez")).status == 200


async def test_a_prefiller_among_the_decoders_is_not_ready():
    async with open_fake_decoder(hang, status={"role": "prefiller", "models": [MODEL]}) as decoder:
        async with open_client(decoder.settings()) as client:
            answer = await client.ask("GET", "/readyz")
    assert (answer.status, answer.json) == (503, {"status": "no decoder is ready"})


async def test_readiness_returns_with_the_decoder():
    async with open_fake_decoder(hang) as decoder:
        settings, port = decoder.settings(), decoder.server.port
    async with open_client(settings) as client:
        assert (await client.ask("GET", "/readyz")).status == 503
        async with open_fake_decoder(saying("a"), port):
            with trio.fail_after(5):
                while (await client.ask("GET", "/readyz")).status != 200:
                    await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nope", 404),
        ("GET", "/v1//models", 404),
        ("GET", "/v1/models/", 200),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/livez", 405),
        ("POST", "/v1/embeddings", 404),
    ],
)
async def test_no_route_answers_html(method: str, path: str, status: int):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask(method, path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    if status >= 400:
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    if status == 405:
        assert "allow" in answer.headers


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b"\xff\xfe", {}),
        (b"null", {}),
        (b'{"model": "m"}', {"content-type": "text/plain"}),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}),
    ],
)
async def test_a_body_that_is_no_request_is_a_400(body: bytes, headers: dict[str, str]):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", CHAT, body, headers=headers)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert decoder.engine.calls == []


async def test_a_body_over_the_limit_is_a_413_whether_its_length_is_told_or_not():
    body = b'{"x": "' + b"a" * 5000 + b'"}'
    async with open_fake_decoder(hang) as decoder:
        limits = Limits(max_body_bytes=4096)
        async with open_client(decoder.settings(limits=limits)) as client:
            for headers in ({}, {"content-length": str(len(body))}):
                answer = await client.ask("POST", CHAT, body, headers=headers)
                assert answer.status == 413
                assert answer.json["error"]["type"] == "invalid_request_error"


async def test_a_body_that_never_ends_is_a_408(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        exchange = client.start("POST", CHAT, b'{"model":', whole=False)
        await exchange.over.wait()
        assert trio.current_time() == pytest.approx(60, abs=2)
    assert exchange.status == 408
    assert exchange.json["error"]["type"] == "invalid_request_error"


async def test_a_parameter_that_is_not_built_is_named():
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "web_search_options": {},
    }
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", CHAT, request)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "web_search_options"


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 12,
        b"\x0a\x02\xff\xfe",
        b"\x0f",
        b"\x22\x7f\x01",
        b"\x22\x06\x0a\x04\xff\xff\xff\xff",
    ],
    ids=["garbage", "bad-utf8", "bad-wire-type", "cut", "bad-key"],
)
async def test_a_decoder_that_answers_control_with_nonsense_is_away_and_harms_no_other(
    answer: bytes,
):
    async def nonsense(call: WireCall) -> None:
        await call.headers()
        await call.raw(answer)
        await call.trailers(0)

    async def unused(call: WireCall) -> None:
        raise AssertionError

    async with (
        open_fake_decoder(saying("a")) as good,
        open_wire_engine(unused, control=nonsense) as bad,
    ):
        settings = Settings(decoders=(bad.address, good.address))
        async with open_client(settings) as client:
            request = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            for _ in range(4):
                assert (await client.ask("POST", CHAT, request)).status == 200
            assert [d.ready for d in client.web.gateway.fleet.decoders] == [False, True]


async def test_the_api_describes_itself_without_anything_from_elsewhere():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        description = await client.ask("GET", "/openapi.json")
        page = await client.ask("GET", "/docs")
        rules = {str(rule): set(rule.methods or ()) for rule in client.web.url_map.iter_rules()}
    assert description.json["openapi"] == "3.1.0"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<code>temperature</code>" in page.body
    assert b"//" not in page.body
    for path, operations in description.json["paths"].items():
        served = rules[path.replace("{model}", "<path:model>")]
        assert {method.upper() for method in operations} <= served


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize("coding", ["gzip", "deflate, gzip", "br", "x"])
async def test_a_compressed_body_is_refused(path: str, coding: str):
    """A few bytes of it could become any number."""
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", path, b"\x1f\x8b", headers={"content-encoding": coding})
    assert answer.status == 415
    assert answer.json["error"]["param"] == "Content-Encoding"
    assert decoder.engine.calls == []


async def test_a_body_that_is_not_compressed_may_say_so():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", CHAT, b"{", headers={"content-encoding": "identity"})
    assert answer.status == 400


async def test_a_body_may_be_as_deep_as_the_settings_say():
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings(limits=Limits(max_json_depth=10))
        async with open_client(settings) as client:
            for path in (CHAT, "/v1/completions", "/tokenize", "/detokenize"):
                answer = await client.ask("POST", path, b'{"x":' + b"[" * 10 + b"]" * 10 + b"}")
                assert answer.status == 400
                assert "10 levels" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [(CHAT, {"POST", "OPTIONS"}), ("/v1/models", {"GET", "HEAD", "OPTIONS"})],
)
async def test_options_are_told_without_a_body_of_any_kind(path: str, methods: set[str]):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        told = await client.ask("OPTIONS", path)
        missing = await client.ask("OPTIONS", "/v1/nothing")
    assert (told.status, told.body) == (204, b"")
    assert set(told.headers["allow"].split(", ")) == methods
    assert "content-type" not in told.headers
    assert "x-request-id" in told.headers
    assert (missing.status, missing.json["error"]["type"]) == (404, "invalid_request_error")
