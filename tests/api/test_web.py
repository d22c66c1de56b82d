"""A request whose handler is looked up gets to the byte what it would get by Quart's routing."""

from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from ark_trio.api.headers import RequestHeaders
from ark_trio.api.web import Web, build_web
from ark_trio.config import HttpSettings, Limits, Settings
from ark_trio.errors import InternalError, Overloaded
from ark_trio.relay.gateway import Gateway
from tests.api.test_rates import stop
from tests.support.asgi import open_client
from tests.support.fake_engine import MODEL, Script, failing, hang, open_fake_decoder, saying
from tests.support.keys import write_keys

CHAT = "/v1/chat/completions"
HEADS = [(b"host", b"test"), (b"content-type", b"application/json"), (b"x-request-id", b"r")]
"""With an id, so that two replies may be the same."""
ORIGIN = (b"origin", b"https://chat.test")


def body(**more: Any) -> bytes:
    return orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more})


def scope_of(path: str = CHAT, headers: Any = (), **more: Any) -> dict[str, Any]:
    return {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "query_string": b"", "root_path": "", "headers": [*headers], "client": ("127.0.0.1", 1), **more,
    }  # fmt: skip


async def ask(
    web: Web, pieces: list[tuple[bytes, bool]], headers: Any, path: str, **more: Any
) -> Any:
    """All that the server is sent. The client leaves once it has the end, or the word that comes before a long silence."""
    sent: list[Any] = []
    send_in, receive = trio.open_memory_channel[Any](10)
    for data, more_comes in pieces:
        send_in.send_nowait({"type": "http.request", "body": data, "more_body": more_comes})

    async def send(message: Any) -> None:
        sent.append({**message})
        if message.get("more_body") is False or b"silence" in message.get("body", b""):
            send_in.send_nowait({"type": "http.disconnect"})
        await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        await web(scope_of(path, headers, **more), receive.receive, send)
    start, *rest = sent
    return start, b"".join(message["body"] for message in rest), rest[-1].get("more_body")


REQUESTS: dict[str, dict[str, Any]] = {
    "whole": {"pieces": [(body(), False)]},
    "stream": {"pieces": [(body(stream=True), False)]},
    "in pieces": {"pieces": [(body()[:9], True), (b"", True), (body()[9:], True), (b"", False)]},
    "bad JSON": {"pieces": [(b"{", False)]},
    "empty": {"pieces": [(b"", False)]},
    "unknown key": {"pieces": [(body(vendor=1), False)]},
    "refused key": {"pieces": [(body(web_search_options={}), False)]},
    "unknown model": {"pieces": [(body(model="zzz"), False)]},
    "too large": {"pieces": [(b" " * 5000, False)]},
    "too large in pieces": {"pieces": [(b" " * 3000, True), (b" " * 3000, True)]},
    "too large, told": {"headers": [(b"content-length", b"5000")], "pieces": [(b" ", True)]},
    "slow": {"pieces": [(b" ", True)]},
    "compressed": {"headers": [(b"content-encoding", b"gzip")], "pieces": [(b"x", False)]},
    "text": {"kind": b"text/plain", "pieces": [(body(), False)]},
    "page": {"headers": [ORIGIN], "pieces": [(body(), False)]},
    "page streams": {"headers": [ORIGIN], "pieces": [(body(stream=True), False)]},
    "other page": {"headers": [(b"origin", b"https://other.test")], "pieces": [(body(), False)]},
    "tokenize": {"path": "/tokenize", "pieces": [(body(prompt="a"), False)]},
    "completion": {"path": "/completions", "pieces": [(body(prompt="a"), False)]},
    "no key": {"key": None, "pieces": [(body(), False)]},
    "bad key": {"key": b"Bearer sk-x", "pieces": [(body(), False)]},
    "http/2": {"http_version": "2", "pieces": [(body(stream=True), False)]},
    "query": {"query_string": b"a=1", "pieces": [(body(), False)]},
}  # fmt: skip
ENGINES: dict[str, Script] = {
    "answers": saying("Hel", "lo"),
    "is full": failing(Overloaded("full")),
    "fails later": saying("a", then=failing(InternalError("boom"))),
    "is left": saying("a", "silence", then=hang),
}
ASKED = {
    "answers": set(REQUESTS),
    "is full": {"whole", "stream", "page", "page streams", "completion", "tokenize"},
    "fails later": {"whole", "stream", "page", "page streams", "completion"},
    "is left": {"stream", "page streams"},
}


@pytest.fixture(autouse=True)
def _same_ids_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("chat", "completions"):
        monkeypatch.setattr(f"ark_trio.api.{module}.new_id", lambda: "0" * 32)
        monkeypatch.setattr(f"ark_trio.api.{module}.time.time", lambda: 1e9)


def known(request: dict[str, Any]) -> dict[str, Any]:
    """The request as it is sent, with a key unless it says otherwise."""
    request = {
        "path": CHAT,
        "key": b"Bearer sk-ann",
        "kind": b"application/json",
        "headers": [],
        **request,
    }
    key, kind, more = request.pop("key"), request.pop("kind"), request.pop("headers")
    headers = [(name, kind if name == b"content-type" else value) for name, value in HEADS]
    return {**request, "headers": [*headers, *more, *([(b"authorization", key)] if key else [])]}


@pytest.mark.parametrize("engine", ENGINES)
async def test_looked_up_and_routed_requests_are_answered_alike(engine: str, tmp_path: Path):
    keys = write_keys(tmp_path / "keys", ann={"requests_per_minute": 10_000})
    async with open_fake_decoder(ENGINES[engine]) as decoder:
        settings = decoder.settings(
            keys_file=keys,
            limits=Limits(max_body_bytes=4096, body_s=0.02),
            http=HttpSettings(cors_origins=("https://chat.test",), root_path="/ai"),
        )
        async with open_client(settings) as one, open_client(settings) as other:
            for client in (one, other):
                stop(client)
            other.web._table.clear()
            for name in ASKED[engine]:
                looked_up, routed = [
                    await ask(c.web, **known(REQUESTS[name])) for c in (one, other)
                ]
                assert looked_up == routed, name


class Nothing:
    """Stands for a gateway that no request gets to."""

    settings = Settings()


WEB = build_web(cast(Gateway, Nothing()))
HOSTS = [
    b"test", b"a.b:80", b"a..b", b".", b"x" * 64, b"x" * 63, b"a." + b"x" * 64, b"[::1]:80", b"[::1",
    b"a_b", b"\xe9", b"a:b", b"", b"a.", b"A-1.b", b"x" * 64 + b":1", b"[" + b"x" * 64,
]  # fmt: skip
PATHS = [path for _, path in WEB._table] + [CHAT + "/", "/" + CHAT, "/v1", "/v1/models", "/nope"]


def routed_to(scope: dict[str, Any]) -> Any:
    """What Quart's routing makes of a request: the handler, or the error."""
    try:
        request = WEB.asgi_http_class(WEB, cast(Any, scope))._create_request_from_scope(
            cast(Any, None)
        )
        adapter = WEB.create_url_adapter(request)
        assert adapter is not None
        rule, holds = adapter.match(return_rule=True)
    except (HTTPException, UnicodeError) as error:
        return type(error)
    assert not holds
    return WEB.view_functions[rule.endpoint]


def agree(path: str, host: bytes, **more: Any) -> None:
    """What is looked up is what Quart finds, if anything is."""
    scope = scope_of(path, [(b"host", host)], **more)
    assert WEB.look_up(scope, RequestHeaders(scope["headers"])) in (None, routed_to(scope))


@pytest.mark.parametrize("root", ["", "/v1", "/v"])
@pytest.mark.parametrize("path", PATHS)
def test_what_is_looked_up_is_what_quart_finds(path: str, root: str):
    for host in HOSTS:
        for query in (b"", b"a=1", "ä".encode(), b"\xff"):
            agree(path, host, root_path=root, query_string=query)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "post"):
        for version in ("1.0", "1.1", "2"):
            agree(path, b"test", root_path=root, method=method, http_version=version)


@given(st.from_regex(rb"[a-zA-Z0-9.:\[\]-]{0,70}", fullmatch=True))
def test_hosts_are_plain_only_where_quart_takes_them(host: bytes):
    agree(CHAT, host)


@pytest.mark.parametrize(
    "host", [b"127.0.0.1:18080", b"localhost", b"api.example.test", b"[::1]:80"]
)
@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/tokenize", "/detokenize"])
def test_plain_requests_are_looked_up(path: str, host: bytes):
    for prefix in ("", "/v1"):
        scope = scope_of(prefix + path, [(b"host", host)])
        assert WEB.look_up(scope, RequestHeaders(scope["headers"])) is routed_to(scope)


async def test_a_reload_changes_what_a_body_may_hold():
    async with open_fake_decoder(saying("a")) as decoder, open_client(decoder.settings()) as client:
        pieces = [(b" " * 5000, False)]
        before, *_ = await ask(client.web, pieces, HEADS, CHAT)
        client.web.gateway.apply(decoder.settings(limits=Limits(max_body_bytes=4096)))
        after, *_ = await ask(client.web, pieces, HEADS, CHAT)
    assert (before["status"], after["status"]) == (400, 413)


@pytest.mark.parametrize("key", [None, b"Bearer sk-ann"])
async def test_a_host_that_cannot_be_one_is_a_400_for_anybody(key: bytes | None, tmp_path: Path):
    keys = write_keys(tmp_path / "keys", ann={})
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings(keys_file=keys)) as client:
            headers = [(b"host", b"a..b"), *([(b"authorization", key)] if key else [])]
            start, body, _ = await ask(client.web, [(b"", False)], headers, CHAT)
    assert start["status"] == 400
    assert orjson.loads(body)["error"]["message"] == "The Host header is malformed."


@pytest.mark.parametrize(("length", "named"), [(b"0", False), (b"1", True)])
async def test_the_kind_of_an_empty_body_matters_to_nobody(length: bytes, named: bool):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        headers = [HEADS[0], (b"content-type", b"text/plain"), (b"content-length", length)]
        start, body, _ = await ask(client.web, [(b"", False)], headers, CHAT)
    assert start["status"] == 400
    assert (b"Content-Type" in body) == named


@pytest.mark.parametrize("stream", [False, True])
async def test_the_servers_word_that_an_answer_is_over_is_no_clients_leaving(stream: bool):
    """It comes while the last piece is being sent: what the server has to do after it must not be cancelled."""
    with structlog.testing.capture_logs() as lines:
        async with open_fake_decoder(saying("a")) as decoder:
            async with open_client(decoder.settings()) as client:
                await ask(client.web, [(body(stream=stream), False)], HEADS, CHAT)
    (line,) = [line for line in lines if line["event"] == "request_ended"]
    assert (line["outcome"], line["status"]) == ("completed", 200)
