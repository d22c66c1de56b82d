"""POST /v1/completions, /tokenize and /detokenize: what clients get, and what the engine sees."""

import pytest
import trio

from ark_trio.config import Limits
from ark_trio.errors import InternalError, Unreachable
from ark_trio.fleet.decoder import Decoder
from ark_trio.protocol.step import ChoiceDelta, Step
from ark_trio.rpc.client import ArkChannel
from ark_trio.rpc.outbox import Outbox
from tests.support.asgi import open_client
from tests.support.fake_engine import (
    MODEL,
    Call,
    failing,
    finish,
    hang,
    open_fake_decoder,
    saying,
    text,
    totals,
)

PATH = "/v1/completions"


async def parrot(call: Call, outbox: Outbox) -> None:
    """Say the prompt in each choice asked for, the last choice first."""
    for index in reversed(range(call.inputs.get("n", 1))):
        await outbox.put(call.say(text(f"{call.inputs['prompt']}.{index}", index)))
        await outbox.put(call.say(finish(index=index)))
    await outbox.put(call.say(totals(1, 2)))


async def complete(script, prompt, path=PATH, **fields):
    """The exchange for a prompt, and the calls that the engine saw."""
    async with open_fake_decoder(script) as decoder, open_client(decoder.settings()) as client:
        body = {"model": MODEL, "prompt": prompt, **fields}
        return await client.ask("POST", path, body), decoder.engine.calls


@pytest.mark.parametrize("path", [PATH, "/completions"])
async def test_a_prompt_is_completed(path: str):
    answer, (call,) = await complete(saying("a", "b"), "hi", path, max_tokens=5)
    assert (answer.status, answer.json["object"]) == (200, "text_completion")
    assert answer.json["id"].startswith("cmpl-")
    assert [choice["text"] for choice in answer.json["choices"]] == ["ab"]
    assert answer.json["usage"]["total_tokens"] == 5
    assert call.request.method == "completion"
    assert call.inputs == {"prompt": "hi", "max_new_tokens": 5}


@pytest.mark.parametrize("stream", [False, True])
async def test_choice_index_is_prompt_times_n_plus_i(stream: bool):
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer, calls = await complete(parrot, ["a", "b", "c"], n=2, **options)
    assert sorted(call.inputs["prompt"] for call in calls) == ["a", "b", "c"]
    if stream:
        *chunks, last, done = answer.frames
        assert done == "[DONE]"
        assert last["choices"] == []
        texts = {c["index"]: c["text"] for chunk in chunks for c in chunk["choices"] if c["text"]}
        usage = last["usage"]
    else:
        texts = {choice["index"]: choice["text"] for choice in answer.json["choices"]}
        usage = answer.json["usage"]
    assert [texts[i] for i in range(6)] == ["a.0", "a.1", "b.0", "b.1", "c.0", "c.1"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 6)


@pytest.mark.parametrize("stream", [False, True])
async def test_one_prompt_that_fails_ends_the_others(stream: bool):
    async def script(call: Call, outbox: Outbox) -> None:
        await (failing(InternalError("boom")) if call.inputs["prompt"] == "b" else hang)(
            call, outbox
        )

    with trio.fail_after(5):
        answer, calls = await complete(script, ["a", "b"], stream=stream)
        assert answer.status == 500
        for call in calls:
            await call.ended.wait()
    assert {call.inputs["prompt"]: call.how for call in calls} == {"a": "cancelled", "b": "failed"}


async def test_a_client_that_leaves_ends_every_prompt_s_call():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        body = {"model": MODEL, "prompt": ["a", "b", "c"]}
        exchange = client.start("POST", PATH, body)
        with trio.fail_after(5):
            while decoder.engine.busy < 3:
                await trio.sleep(0.01)
            exchange.leave()
            for call in decoder.engine.calls:
                await call.ended.wait()
    assert [call.how for call in decoder.engine.calls] == ["cancelled"] * 3
    assert client.web.gateway.admission.running == 0


async def test_a_stopped_gateway_ends_completions_with_an_error():
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        exchange = client.start("POST", PATH, {"model": MODEL, "prompt": ["a", "b"]})
        with trio.fail_after(5):
            while decoder.engine.busy < 2:
                await trio.sleep(0.01)
            client.web.gateway.abort()
            await exchange.over.wait()
    assert exchange.status == 503


async def test_reasoning_of_an_engine_that_splits_it_stays_in_the_text():
    async def script(call: Call, outbox: Outbox) -> None:
        await outbox.put(call.say(Step(choices=(ChoiceDelta(reasoning="hm"),))))
        await outbox.put(call.say(text("x")))
        await outbox.put(call.say(finish()))

    answer, _ = await complete(script, "hi")
    assert answer.json["choices"][0]["text"] == "<think>\nhm\n</think>\n\nx"


TOKENS = {"tokens": [1, 2, 3], "count": 3, "max_model_len": 4096}


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_text_and_conversations_are_tokenized_by_the_engine(prefix: str):
    replies = {"tokenize": TOKENS, "detokenize": {"text": "hi"}}
    messages = [{"role": "user", "content": "hi"}]
    async with open_fake_decoder(hang, replies=replies) as decoder:
        async with open_client(decoder.settings()) as client:
            one = await client.ask("POST", f"{prefix}/tokenize", {"model": MODEL, "prompt": "hi"})
            two = await client.ask(
                "POST", f"{prefix}/tokenize", {"model": MODEL, "messages": messages}
            )
            back = await client.ask(
                "POST", f"{prefix}/detokenize", {"model": MODEL, "tokens": [1, 2]}
            )
    assert one.json == two.json == {**TOKENS, "token_strs": None}
    assert back.json == {"prompt": "hi"}
    methods = [(call.request.method, call.inputs) for call in decoder.engine.calls]
    assert methods == [
        ("tokenize", {"text": "hi"}),
        ("tokenize", {"messages": messages}),
        ("detokenize", {"tokens": [1, 2]}),
    ]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "return_token_strs": True}, "return_token_strs"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": False}, "add_special_tokens"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": ["x"]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
async def test_a_request_for_tokens_is_checked(path, fields, param):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", path, {"model": MODEL, **fields})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert decoder.engine.calls == []


@pytest.mark.parametrize(
    ("path", "fields"), [("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})]
)
async def test_an_answer_that_is_no_tokens_is_the_engine_s_fault(path, fields):
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", path, {"model": MODEL, **fields})
    assert answer.status == 502


async def test_a_silent_tokenizer_is_a_504(autojump_clock: trio.testing.MockClock, monkeypatch):
    async def silent(_self, _request):
        await trio.sleep_forever()

    limits = Limits(first_token_s=2)
    began = trio.current_time()
    async with open_fake_decoder(hang) as decoder:
        monkeypatch.setattr(type(decoder.engine), "call", silent)
        async with open_client(decoder.settings(limits=limits)) as client:
            answer = await client.ask("POST", "/tokenize", {"model": MODEL, "prompt": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (504, "first_token_timeout")
    assert trio.current_time() - began == pytest.approx(2, abs=1)


async def test_a_decoder_that_a_call_could_not_reach_is_not_chosen_until_it_answers(monkeypatch):
    async def unreachable(_self, _request, *, metadata=()):
        await trio.lowlevel.checkpoint()
        raise Unreachable("gone")

    ready = []
    judge = Decoder.judge

    def spy(decoder, error):
        judge(decoder, error)
        ready.append(decoder.ready)

    monkeypatch.setattr(ArkChannel, "call", unreachable)
    monkeypatch.setattr(Decoder, "judge", spy)
    async with open_fake_decoder(hang) as decoder, open_client(decoder.settings()) as client:
        answer = await client.ask("POST", "/tokenize", {"model": MODEL, "prompt": "a"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ready == [False]


async def test_several_prompts_wait_for_a_client_that_does_not_read():
    words = [f"{number} ".ljust(4096, ".") for number in range(400)]
    async with open_fake_decoder(saying(*words)) as decoder:
        async with open_client(decoder.settings()) as client:
            body = {"model": MODEL, "prompt": ["a", "b", "c"], "stream": True}
            exchange = client.start("POST", PATH, body)
            exchange.stop_reading()
            with trio.fail_after(5):
                while decoder.engine.busy < 3:
                    await trio.sleep(0.01)
            await trio.sleep(1)
            # The mailbox and the flow-control windows are full; the engine can't say the rest to nobody.
            assert decoder.engine.busy == 3
            exchange.read_on()
            with trio.fail_after(20):
                await exchange.over.wait()
    chosen = dict.fromkeys(range(3), "")
    for frame in exchange.frames[:-1]:
        for choice in frame["choices"]:
            chosen[choice["index"]] += choice["text"]
    assert set(chosen.values()) == {"".join(words)}
