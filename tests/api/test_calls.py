"""What all endpoints share: traces, how models write, web pages of other origins, the root path."""

import pytest
import structlog

from ark_trio.config import HttpSettings, TextSettings
from ark_trio.rpc.client import ArkChannel
from ark_trio.rpc.outbox import Outbox
from tests.support.asgi import open_client
from tests.support.fake_engine import MODEL, Call, finish, hang, open_fake_decoder, saying, text

CHAT = "/v1/chat/completions"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def body(**more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ({"traceparent": TRACE}, {"traceparent": TRACE}),
        (
            {"traceparent": TRACE, "tracestate": "a=1,b=2"},
            {"traceparent": TRACE, "tracestate": "a=1,b=2"},
        ),
        ({"traceparent": TRACE, "tracestate": "é"}, {"traceparent": TRACE}),
        ({"traceparent": "00-xyz"}, {}),
        ({"traceparent": TRACE + "\t"}, {}),
        ({"tracestate": "a=1"}, {}),
    ],
)
async def test_the_trace_context_reaches_the_engine_if_it_is_sane(sent, received, monkeypatch):
    seen = {}
    plain = ArkChannel.stream_known

    async def spy(self, request, sink, *, metadata=()):
        seen.update(metadata)
        await plain(self, request, sink, metadata=metadata)

    monkeypatch.setattr(ArkChannel, "stream_known", spy)
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            answer = await client.ask("POST", CHAT, body(), headers={"x-request-id": "r", **sent})
    assert answer.status == 200
    assert seen == {"x-request-id": "r", **received}


async def ask_model(said, text_settings, **fields):
    async def script(call: Call, outbox: Outbox) -> None:
        for piece in said:
            await outbox.put(call.say(text(piece)))
        await outbox.put(call.say(finish()))

    async with open_fake_decoder(script) as decoder:
        async with open_client(decoder.settings(text=text_settings)) as client:
            answer = await client.ask("POST", CHAT, body(**fields))
    choice = answer.json["choices"][0]
    return choice["message"], choice["finish_reason"]


@pytest.mark.parametrize(
    ("rules", "reasoning", "content"),
    [
        ((), None, "hm</think>x"),
        ((f"{MODEL}=open",), "hm", "x"),
        (("*=open",), "hm", "x"),
        (("*=open", f"{MODEL}=off"), None, "hm</think>x"),
        (("other=open",), None, "hm</think>x"),
    ],
)
async def test_reasoning_is_read_as_the_settings_say_of_the_model(rules, reasoning, content):
    message, _ = await ask_model(["hm</thi", "nk>x"], TextSettings(reasoning=rules))
    assert message.get("reasoning_content") == message.get("reasoning") == reasoning
    assert message["content"] == content


CALL = '{"name": "f", "arguments": {}}'


@pytest.mark.parametrize(
    ("rules", "said", "called"),
    [
        ((), f"<tool_call>{CALL}</tool_call>", True),
        ((), CALL, False),
        (("*=json",), CALL, True),
        (("*=off",), f"<tool_call>{CALL}</tool_call>", False),
        ((f"{MODEL}=deepseek",), f"<tool_call>{CALL}</tool_call>", False),
    ],
)
async def test_tool_calls_are_read_as_the_settings_say_of_the_model(rules, said, called):
    message, finish_reason = await ask_model(said, TextSettings(tools=rules), tools=TOOLS)
    assert finish_reason == ("tool_calls" if called else "stop")
    if called:
        (call,) = message["tool_calls"]
        assert call["function"] == {"name": "f", "arguments": "{}"}
        assert call["id"].startswith("call_")
        assert message["content"] is None
    else:
        assert message["content"] == said
        assert "tool_calls" not in message


async def test_without_tools_what_looks_like_a_call_is_text():
    said = f"<tool_call>{CALL}</tool_call>"
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        message, finish_reason = await ask_model(said, TextSettings(), **fields)
        assert (message["content"], finish_reason) == (said, "stop")


ORIGIN = "https://chat.test"
PREFLIGHT = {
    "origin": ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def ask_page(method, path, headers, origins, request=None):
    async with open_fake_decoder(saying("a")) as decoder:
        settings = decoder.settings(http=HttpSettings(cors_origins=origins))
        async with open_client(settings) as client:
            return await client.ask(method, path, request, headers=headers)


@pytest.mark.parametrize(("origins", "allowed"), [((ORIGIN,), ORIGIN), (("*",), "*")])
async def test_a_page_of_an_allowed_origin_may_call_and_read_errors_too(origins, allowed):
    asked = await ask_page("OPTIONS", CHAT, PREFLIGHT, origins)
    assert (asked.status, asked.body) == (204, b"")
    assert "content-type" not in asked.headers
    assert asked.headers["access-control-allow-origin"] == allowed
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in asked.headers["access-control-allow-methods"]
    for request, status in ((body(), 200), ({}, 400)):
        answer = await ask_page("POST", CHAT, {"origin": ORIGIN}, origins, request)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == allowed
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "origin"


@pytest.mark.parametrize("origins", [(), ("https://other.test",)])
async def test_a_page_of_another_origin_may_not(origins):
    asked = await ask_page("OPTIONS", CHAT, PREFLIGHT, origins)
    answer = await ask_page("POST", CHAT, {"origin": ORIGIN}, origins, body())
    assert answer.status == 200
    for exchange in (asked, answer):
        assert "access-control-allow-origin" not in exchange.headers
    assert ("vary" in answer.headers) == bool(origins)


async def test_without_an_origin_nothing_is_said_of_origins():
    answer = await ask_page("POST", CHAT, {}, ("*",), body())
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("root", ["/ai", "ai/", "/ai/v2"])
async def test_all_is_served_under_the_root_path_and_without_it(root):
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings(http=HttpSettings(root_path=root))
        async with open_client(settings) as client:
            path = f"/{root.strip('/')}"
            assert (await client.ask("GET", f"{path}/v1/models")).status == 200
            assert (await client.ask("GET", "/v1/models")).status == 200
            assert (await client.ask("GET", f"{path}x/v1/models")).status == 404


async def test_fields_that_nobody_knows_are_told_once_in_the_log():
    with structlog.testing.capture_logs() as lines:
        async with open_fake_decoder(saying("a")) as decoder:
            async with open_client(decoder.settings()) as client:
                answer = await client.ask("POST", CHAT, body(vendor=1, other={"deep": []}))
    assert answer.status == 200
    (line,) = [line for line in lines if line["event"] == "fields_unknown"]
    assert (line["fields"], line["log_level"]) == (["other", "vendor"], "debug")
