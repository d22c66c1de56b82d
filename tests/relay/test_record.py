"""One line a request at its end: what it tells, and what it keeps to itself."""

from functools import partial
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from ark_trio.config import LogSettings, Settings
from ark_trio.relay.record import Record
from tests.support.asgi import open_client
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying

CHAT = "/v1/chat/completions"
SECRET = "the moon is made of cheese"


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], **more}


def ended(lines: Any) -> dict[str, Any]:
    (line,) = [line for line in lines if line["event"] == "request_ended"]
    return dict(line)


async def test_the_line_names_outcome_tokens_times_decoder_and_retries():
    with capture_logs() as lines:
        async with open_fake_decoder(saying("a", "b")) as decoder:
            async with open_client(decoder.settings()) as client:
                await client.ask("POST", CHAT, body(stream=True))
    line = ended(lines)
    assert line["log_level"] == "info"
    expected = {
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "outcome": "completed",
        "model": MODEL,
        "stream": True,
        "key": None,
        "decoder": str(decoder.address),
        "retries": 0,
        "prompt_tokens": 3,
        "completion_tokens": 2,
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 <= line["queue_s"] <= line["first_token_s"] <= line["total_s"] < 5


@pytest.mark.parametrize("outcome", ["completed", "client_gone"])
async def test_neither_prompt_nor_address_is_told_unasked(outcome: str):
    with capture_logs() as lines:
        async with open_fake_decoder(saying("a") if outcome == "completed" else hang) as decoder:
            async with open_client(decoder.settings()) as client:
                exchange = client.start("POST", CHAT, body())
                if outcome == "client_gone":
                    while not decoder.engine.calls:
                        await trio.sleep(0.01)
                    exchange.leave()
                await exchange.over.wait()
    line = ended(lines)
    assert line["outcome"] == outcome
    assert {"client", "body"}.isdisjoint(line)
    assert SECRET not in repr(lines)


async def test_prompt_and_address_are_told_where_the_settings_want_it():
    with capture_logs() as lines:
        async with open_fake_decoder(saying("a")) as decoder:
            told = LogSettings(addresses=True, prompts=True)
            async with open_client(decoder.settings(log=told)) as client:
                await client.ask("POST", CHAT, body(user="u" * 20_000))
    line = ended(lines)
    assert line["client"] == "127.0.0.1"
    assert SECRET in line["body"]
    assert len(line["body"]) == 16 << 10


async def test_what_machines_ask_all_the_time_is_told_at_debug():
    with capture_logs() as lines:
        async with open_client(Settings()) as client:
            await client.ask("GET", "/livez")
            await client.ask("GET", "/readyz")
    levels = [line["log_level"] for line in lines if line["event"] == "request_ended"]
    assert levels == ["debug", "debug"]


async def test_a_hostile_path_is_cut():
    with capture_logs() as lines:
        async with open_client(Settings()) as client:
            await client.ask("GET", "/" + "x" * 100_000)
    assert len(ended(lines)["path"]) == 200


async def test_a_request_of_several_calls_is_as_far_as_the_first_of_them():
    record = Record(request_id="r", method="POST", path=CHAT)
    phases = []
    for step in (
        record.queue,
        record.place,
        partial(record.ask, "first"),
        record.queue,
        partial(record.arrive, 1, 0.0, 0.0),
        record.queue,
        partial(record.ask, "second"),
    ):
        step()
        phases.append(record.phase)
    assert phases == ["queued", "queued", "prefill", "prefill", "decode", "decode", "decode"]
