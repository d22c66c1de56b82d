"""POST /v1/chat/completions: what clients get, and what the engine sees when they leave."""

import pytest
import trio

from ark_trio.config import Limits
from ark_trio.errors import ArkError, InternalError, InvalidRequest, Overloaded, Unavailable
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta
from ark_trio.rpc.outbox import Outbox
from tests.support.asgi import Client, Exchange, open_client
from tests.support.fake_engine import (
    MODEL,
    Call,
    FakeDecoder,
    Script,
    failing,
    finish,
    hang,
    open_fake_decoder,
    saying,
    text,
    totals,
)

CHAT = "/v1/chat/completions"


def body(*, stream: bool = True, content: str = "hi", **more: object) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "stream": stream,
        **more,
    }


async def ask(script: Script, request: dict[str, object], **settings: object) -> Exchange:
    async with open_fake_decoder(script) as decoder:
        async with open_client(decoder.settings(**settings)) as client:
            return await client.ask("POST", CHAT, request)


def message_of(exchange: Exchange) -> str:
    error = exchange.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


async def test_a_stream_is_role_then_text_then_finish_then_done():
    exchange = await ask(saying("Hel", "lo"), body())
    assert exchange.status == 200
    assert exchange.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert exchange.headers["cache-control"] == "no-cache"
    assert exchange.headers["x-accel-buffering"] == "no"
    *chunks, done = exchange.frames
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, None, "stop"]
    assert len({c["id"] for c in chunks}) == 1
    assert chunks[0]["id"].startswith("chatcmpl-")
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_comes_when_asked_for_and_last():
    exchange = await ask(saying("a", "b"), body(stream_options={"include_usage": True}))
    *_, last, done = exchange.frames
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 3
    assert last["usage"]["completion_tokens"] == 2
    assert last["usage"]["total_tokens"] == 5


async def test_without_stream_the_answer_is_one_object():
    exchange = await ask(saying("Hel", "lo"), body(stream=False))
    assert exchange.status == 200
    assert exchange.headers["content-type"] == "application/json"
    answer = exchange.json
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("prompt has 9000 tokens, context is 4096"), 400),
        (Overloaded("full"), 429),
        (Unavailable("prefiller gone"), 503),
        (InternalError("boom"), 500),
    ],
)
async def test_a_failure_before_the_first_message_has_its_own_status(
    stream: bool, error: ArkError, status: int
):
    exchange = await ask(failing(error), body(stream=stream))
    assert exchange.status == status
    assert exchange.headers["content-type"] == "application/json"
    assert ("retry-after" in exchange.headers) == (status in (429, 503))
    message_of(exchange)


async def test_the_engines_reason_reaches_the_client_when_the_request_is_at_fault():
    error = InvalidRequest(
        "prompt has 9000 tokens, context is 4096", code="context_length_exceeded"
    )
    exchange = await ask(failing(error), body())
    assert exchange.json["error"]["code"] == "context_length_exceeded"
    assert "9000" in message_of(exchange)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_after_the_first_message_is_never_a_made_up_stop(stream: bool):
    script = saying("Hel", then=failing(InternalError("boom")))
    exchange = await ask(script, body(stream=stream))
    if not stream:
        assert exchange.status == 500
        return
    assert exchange.status == 200
    *_, error, done = exchange.frames
    assert done == "[DONE]"
    assert error["error"]["type"] == "server_error"
    assert exchange.text == "Hel"
    assert '"stop"' not in exchange.body.decode()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_finish_reason_is_an_engine_fault(stream: bool):
    async def script(call: Call, outbox: Outbox) -> None:
        await outbox.put(call.say(text("half")))

    exchange = await ask(script, body(stream=stream))
    if stream:
        *_, error, done = exchange.frames
        assert (error["error"]["type"], done) == ("server_error", "[DONE]")
    else:
        assert exchange.status == 502


@pytest.mark.parametrize("stream", [True, False])
async def test_an_empty_answer_is_an_engine_fault_with_a_status(stream: bool):
    async def script(call: Call, outbox: Outbox) -> None:
        await trio.lowlevel.checkpoint()

    exchange = await ask(script, body(stream=stream))
    assert exchange.status == 502


async def test_choices_interleave_and_each_gets_its_last_chunk():
    async def script(call: Call, outbox: Outbox) -> None:
        for word in ("a", "b"):
            for index in (0, 1):
                await outbox.put(call.say(text(word + str(index), index)))
        for index in (1, 0):
            await outbox.put(call.say(finish(index=index)))

    exchange = await ask(script, body(n=2))
    said = {0: "", 1: ""}
    finishes = []
    for frame in exchange.frames[:-1]:
        for choice in frame["choices"]:
            said[choice["index"]] += choice["delta"].get("content", "")
            if choice["finish_reason"]:
                finishes.append(choice["index"])
    assert said == {0: "a0b0", 1: "a1b1"}
    assert sorted(finishes) == [0, 1]


async def test_a_stream_longer_than_sixty_seconds_lives(autojump_clock: trio.testing.MockClock):
    exchange = await ask(saying(*"abcdefgh", gap_s=30.0), body())
    assert trio.current_time() > 200
    assert exchange.frames[-1] == "[DONE]"
    assert exchange.text == "abcdefgh"


async def test_a_long_answer_without_stream_lives(autojump_clock: trio.testing.MockClock):
    exchange = await ask(saying(*"abcdefgh", gap_s=30.0), body(stream=False))
    assert exchange.json["choices"][0]["message"]["content"] == "abcdefgh"


async def test_silence_is_filled_with_comments(autojump_clock: trio.testing.MockClock):
    exchange = await ask(saying("a", "b", gap_s=40.0), body(), limits=Limits(keep_alive_s=15.0))
    assert exchange.body.count(b": keep-alive\n\n") == 4
    assert exchange.body.startswith(b": keep-alive\n\n")
    assert exchange.text == "ab"


async def test_an_early_failure_keeps_its_status_despite_keep_alive(
    autojump_clock: trio.testing.MockClock,
):
    async def script(call: Call, outbox: Outbox) -> None:
        await trio.sleep(10)
        raise Overloaded("full")

    exchange = await ask(script, body(), limits=Limits(keep_alive_s=15.0))
    assert exchange.status == 429


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("limits", "script", "code", "seconds"),
    [
        (Limits(first_token_s=20), hang, "first_token_timeout", 20),
        (Limits(between_tokens_s=7), saying("a", then=hang), "token_timeout", 7),
        (Limits(total_s=9), saying(*"abcdef", gap_s=2), "total_timeout", 9),
    ],
)
async def test_each_time_limit_has_its_own_code_and_ends_the_engines_call(
    stream: bool,
    limits: Limits,
    script: Script,
    code: str,
    seconds: float,
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(script) as decoder:
        async with open_client(decoder.settings(limits=limits)) as client:
            began = trio.current_time()
            exchange = await client.ask("POST", CHAT, body(stream=stream))
            await decoder.engine.calls[0].ended.wait()
            assert trio.current_time() - began == pytest.approx(seconds, abs=1)
    if exchange.status == 200:
        assert exchange.frames[-2]["error"]["code"] == code
        assert exchange.frames[-1] == "[DONE]"
    else:
        assert exchange.status == 504
        assert exchange.json["error"]["code"] == code
    assert decoder.engine.calls[0].how == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_a_client_that_leaves_ends_the_engines_call(stream: bool, chunks: int):
    async with open_fake_decoder(saying(*"abc"[:chunks], then=hang)) as decoder:
        async with open_client(decoder.settings()) as client:
            exchange = client.start("POST", CHAT, body(stream=stream))
            with trio.fail_after(5):
                while not decoder.engine.calls:
                    await trio.sleep(0.001)
                if stream and chunks:
                    await exchange.wait_for_text("abc"[:chunks])
            exchange.leave()
            await assert_ended(decoder, client, exchange)


async def test_a_client_that_leaves_while_it_does_not_read_ends_the_engines_call():
    async def flood(call: Call, outbox: Outbox) -> None:
        while True:
            await outbox.put(call.say(text("x" * 1000)))

    async with open_fake_decoder(flood) as decoder:
        async with open_client(decoder.settings()) as client:
            exchange = client.start("POST", CHAT, body())
            with trio.fail_after(5):
                await exchange.wait_for(3)
            exchange.stop_reading()
            await trio.sleep(0.3)  # every buffer on the way fills up
            exchange.leave()
            await assert_ended(decoder, client, exchange)


async def assert_ended(decoder: FakeDecoder, client: Client, exchange: Exchange) -> None:
    """The engine saw its cancel at once, and nothing of the request is left."""
    (call,) = decoder.engine.calls
    with trio.fail_after(0.5):
        await call.ended.wait()
        await exchange.over.wait()
    assert call.how == "cancelled"
    gateway = client.web.gateway
    assert gateway.admission.running == 0
    assert [d.in_flight for d in gateway.fleet.decoders] == [0]
    assert not gateway._open


async def test_a_client_that_leaves_before_its_body_is_whole_leaves_nothing():
    async with open_fake_decoder(hang) as decoder:
        async with open_client(decoder.settings()) as client:
            exchange = client.start("POST", CHAT, b'{"model":', whole=False)
            await trio.testing.wait_all_tasks_blocked()
            exchange.leave()
            with trio.fail_after(0.5):
                await exchange.over.wait()
    assert decoder.engine.calls == []


async def test_a_request_over_the_limit_waits_and_beyond_the_line_is_refused_at_once():
    limits = Limits(max_requests=1, max_waiting=1)
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_client(decoder.settings(limits=limits)) as client:
            running = client.start("POST", CHAT, body())
            with trio.fail_after(5):
                await running.wait_for_text("a")
                waiting = client.start("POST", CHAT, body())
                while client.web.gateway.admission.waiting == 0:
                    await trio.sleep(0.001)
                refused = await client.ask("POST", CHAT, body())
                assert refused.status == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.json["error"]["code"] == "rate_limit_exceeded"
                running.leave()
                await waiting.wait_for_text("a")  # it got the place
                waiting.leave()
                await waiting.over.wait()
            assert client.web.gateway.admission.running == 0


async def test_a_client_that_leaves_the_line_frees_it():
    limits = Limits(max_requests=1, max_waiting=1)
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_client(decoder.settings(limits=limits)) as client:
            running = client.start("POST", CHAT, body())
            with trio.fail_after(5):
                await running.wait_for_text("a")
                waiting = client.start("POST", CHAT, body())
                while client.web.gateway.admission.waiting == 0:
                    await trio.sleep(0.001)
                waiting.leave()
                await waiting.over.wait()
            assert client.web.gateway.admission.waiting == 0
            assert len(decoder.engine.calls) == 1


async def test_no_decoder_is_a_503_with_retry_after():
    async with open_fake_decoder(hang) as decoder:
        settings = decoder.settings()
    async with open_client(settings) as client:
        exchange = await client.ask("POST", CHAT, body())
        assert exchange.status == 503
        assert exchange.headers["retry-after"] == "1"
        assert "127.0.0.1" not in exchange.body.decode()


async def test_an_unknown_model_is_a_404_that_names_what_is_served():
    exchange = await ask(hang, body() | {"model": "gpt-0"})
    assert exchange.status == 404
    assert exchange.json["error"]["code"] == "model_not_found"
    assert exchange.json["error"]["param"] == "model"
    assert MODEL in message_of(exchange)


async def test_abort_ends_every_stream_with_an_error_and_done():
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_client(decoder.settings()) as client:
            streams = [client.start("POST", CHAT, body()) for _ in range(5)]
            for stream in streams:
                await stream.wait_for_text("a")
            client.web.gateway.abort()
            with trio.fail_after(1):
                for stream in streams:
                    await stream.over.wait()
                    assert stream.frames[-2]["error"]["message"] == "The gateway is being stopped."
                    assert stream.frames[-1] == "[DONE]"
            late = await client.ask("POST", CHAT, body())
            assert late.status == 503


@pytest.mark.parametrize("stream", [True, False])
async def test_a_bug_of_ours_is_told_to_the_client_and_harms_no_other(
    stream: bool, monkeypatch: pytest.MonkeyPatch
):
    from ark_trio.protocol import answer_text

    class Broken:
        def feed(self, _message: object) -> Step:
            raise ZeroDivisionError("/home/secret.py")

    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            with monkeypatch.context() as patch:
                patch.setattr(answer_text, "ResponseDecoder", Broken)
                broken = await client.ask("POST", CHAT, body(stream=stream))
            assert broken.status == 500
            assert "secret" not in broken.body.decode()
            message_of(broken)
            assert (await client.ask("POST", CHAT, body())).frames[-1] == "[DONE]"


async def test_the_request_id_is_echoed_and_reaches_the_engine():
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            mine = await client.ask("POST", CHAT, body(), headers={"x-request-id": "mine-1"})
            insane = await client.ask("POST", CHAT, body(), headers={"x-request-id": "a b\tc"})
    assert mine.headers["x-request-id"] == "mine-1"
    assert insane.headers["x-request-id"] != "a b\tc"
    # The engine's own id is always ours: two clients may use the same x-request-id.
    assert len({call.request.req_id for call in decoder.engine.calls} - {"mine-1"}) == 2


async def test_what_the_client_said_reaches_the_engine():
    request = body(stream=False, temperature=0.7, max_completion_tokens=5, seed=1, stop=["x"])
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            await client.ask("POST", CHAT, request)
    inputs = decoder.engine.calls[0].inputs
    assert inputs["messages"] == [{"role": "user", "content": "hi"}]
    assert inputs["temperature"] == 0.7
    assert inputs["max_new_tokens"] == 5
    assert inputs["seed"] == 1


async def test_a_step_without_text_is_no_chunk_but_begins_the_answer():
    async def script(call: Call, outbox: Outbox) -> None:
        await outbox.put(call.say(totals(3, 0)))
        await outbox.put(
            call.say(Step(choices=(ChoiceDelta(content="a", finish_reason="length"),)))
        )

    exchange = await ask(script, body())
    assert exchange.text == "a"
    assert exchange.frames[-2]["choices"][0]["finish_reason"] == "length"


async def test_all_requests_share_one_connection_to_the_decoder():
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_client(decoder.settings()) as client:
            for _ in range(5):
                await client.ask("POST", CHAT, body())
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(client.ask, "POST", CHAT, body())
            assert len(decoder.engine.calls) == 25
            assert len(decoder.server._grpc._connections) == 1


async def test_a_client_that_reads_slowly_is_not_the_engines_delay(
    autojump_clock: trio.testing.MockClock,
):
    async def flood(call: Call, outbox: Outbox) -> None:
        for _ in range(3000):
            await outbox.put(call.say(text("x" * 200)))
        await outbox.put(call.say(finish()))

    async with open_fake_decoder(flood) as decoder:
        limits = Limits(between_tokens_s=2)
        async with open_client(decoder.settings(limits=limits)) as client:
            exchange = client.start("POST", CHAT, body())
            await exchange.wait_for(1)
            exchange.stop_reading()
            await trio.sleep(10)
            exchange.read_on()
            await exchange.over.wait()
    assert len(exchange.text) == 600_000
    assert exchange.frames[-1] == "[DONE]"


async def test_a_refusal_of_the_engine_names_what_the_caller_wrote():
    error = InvalidRequest("response_format: the schema has no value.", param="response_format")
    request = body(guided_json={"type": "integer"}, stream=False)
    answer = await ask(failing(error), request)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "guided_json"
    assert answer.json["error"]["message"] == "guided_json: the schema has no value."


@pytest.mark.parametrize("stream", [False, True])
async def test_functions_are_asked_as_tools_and_answered_in_the_words_of_2023(stream: bool):
    async def script(call: Call, outbox: Outbox) -> None:
        assert call.inputs["tools"] == [{"type": "function", "function": {"name": "add"}}]
        made = ToolCallDelta(index=0, id="x", name="add", arguments="{}")
        await outbox.put(call.say(Step(choices=(ChoiceDelta(tool_calls=(made,)),))))
        await outbox.put(call.say(finish("tool_calls")))

    answer = await ask(script, body(functions=[{"name": "add"}], stream=stream))
    assert answer.status == 200
    said = answer.body.decode()
    assert '"finish_reason":"function_call"' in said
    assert '"function_call":{"name":"add","arguments":' in said
    assert "tool_calls" not in said
