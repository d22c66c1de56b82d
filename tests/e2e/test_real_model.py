"""The whole path on the real model: HTTP to gateway, gRPC to decoder, KV cache from a prefiller in a third process."""

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import orjson
import pytest
from attrs import frozen
from openai.types.chat import ChatCompletionUserMessageParam

from tests.support.processes import Served, engine, free_port, gateway, wait_until
from tests.support.wire import CHAT, chat, connected, post, read_until, status

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.timeout(180)]

MODEL = "deepseek-r1-0528"
NAMES = ["--served-names", MODEL]
JSON = {"content-type": "application/json"}
LONG = "Write a very long story about a fox and a crow. Do not stop."


@frozen(kw_only=True)
class Stack:
    prefiller: Served
    decoder: Served
    door: Served


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with engine("prefiller", *NAMES, driver="llama") as prefiller:
        flags = [*NAMES, "--prefillers", f"127.0.0.1:{prefiller.port}"]
        with engine("decoder", *flags, driver="llama") as decoder:
            with gateway("proxy", [decoder.port]) as door:
                yield Stack(prefiller=prefiller, decoder=decoder, door=door)


def question(content: str, **more: Any) -> bytes:
    return chat(content, model=MODEL, **more)


def free(decoder: Served) -> bool:
    return bool(status(decoder.port)["busy"] == 0)


def test_curl_streams_from_the_model(stack: Stack):
    body = question("What is the capital of France?", max_tokens=24, temperature=0).decode()
    command = ["curl", "-sSN", "-H", "content-type: application/json", "-d", body]
    out = subprocess.run(
        [*command, stack.door.url + CHAT], capture_output=True, check=True, timeout=60
    ).stdout.decode()
    *chunks, done = [line.removeprefix("data: ") for line in out.split("\n\n") if line]
    assert done == "[DONE]"
    deltas = [orjson.loads(chunk)["choices"][0] for chunk in chunks]
    said = "".join(choice["delta"].get("content", "") for choice in deltas)
    assert len(said) > 20  # what it says is the small model's business
    assert deltas[-1]["finish_reason"] in ("stop", "length")
    assert len(deltas) > 5


def test_the_sdk_talks_to_the_model_both_ways(stack: Stack):
    with openai.OpenAI(base_url=f"{stack.door.url}/v1", api_key="none", max_retries=0) as client:
        ask = ChatCompletionUserMessageParam(role="user", content="What is the capital of France?")
        whole = client.chat.completions.create(
            model=MODEL, messages=[ask], max_tokens=16, temperature=0
        )
        assert whole.usage is not None
        assert 0 < whole.usage.completion_tokens <= 16
        assert whole.usage.prompt_tokens > 5
        stream = client.chat.completions.create(
            model=MODEL, messages=[ask], max_tokens=16, temperature=0, stream=True
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert said == whole.choices[0].message.content


def test_the_prompt_is_evaluated_by_the_prefiller_and_not_by_the_decoder(stack: Stack):
    before = status(stack.prefiller.port), status(stack.decoder.port)
    body = question("Count the legs of a spider, a cat and a bird.", stream=False, max_tokens=4)
    answer = httpx2.post(stack.door.url + CHAT, content=body, headers=JSON, timeout=60).json()
    after = status(stack.prefiller.port), status(stack.decoder.port)
    key = "prompt_tokens_evaluated"
    usage = answer["usage"]
    # What the prefiller's prefix cache held (the template's beginning) is computed by nobody.
    new = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    assert new > 10
    assert after[0][key] - before[0][key] >= new - 1
    assert after[1][key] - before[1][key] <= 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_slot_within_a_second(stack: Stack, stream: bool):
    with connected(stack.door.port) as sock:
        sock.sendall(post(question(LONG, stream=stream, max_tokens=2000, ignore_eos=True)))
        if stream:
            read_until(sock, b'"content":"', count=4, within_s=30)
        wait_until(lambda: not free(stack.decoder), what="the slot's use")
    wait_until(lambda: free(stack.decoder), within_s=1.5, what="the slot's return")


def test_eight_conversations_at_once_each_get_their_answer(stack: Stack):
    with openai.OpenAI(base_url=f"{stack.door.url}/v1", api_key="none", timeout=120) as client:
        streams = [
            client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"Say the number {i} and stop."}],
                max_tokens=12,
                stream=True,
            )
            for i in range(8)
        ]
        finishes = [[c.choices[0].finish_reason for c in stream][-1] for stream in streams]
    assert set(finishes) <= {"stop", "length"}
    wait_until(lambda: free(stack.decoder), within_s=2, what="the slots' return")


def test_a_prefiller_that_dies_is_a_503_at_once_and_back_again():
    port = free_port()
    with engine("prefiller", *NAMES, driver="llama", port=port) as prefiller:
        flags = [*NAMES, "--prefillers", f"127.0.0.1:{port}"]
        with engine("decoder", *flags, driver="llama") as decoder:
            with gateway("proxy", [decoder.port]) as door:
                url, body = door.url + CHAT, question("Hello!", stream=False, max_tokens=4)
                assert httpx2.post(url, content=body, headers=JSON, timeout=60).status_code == 200
                prefiller.kill()
                began = time.monotonic()
                away = httpx2.post(url, content=body, headers=JSON, timeout=60)
                assert time.monotonic() - began < 2
                assert away.status_code == 503
                assert "127.0.0.1" not in away.text
                with engine("prefiller", *NAMES, driver="llama", port=port):
                    back = httpx2.post(url, content=body, headers=JSON, timeout=60)
                    assert back.status_code == 200


def test_a_decoder_that_dies_in_mid_stream_is_told_and_back_again(stack: Stack):
    port = free_port()
    flags = [*NAMES, "--prefillers", f"127.0.0.1:{stack.prefiller.port}"]
    with engine("decoder", *flags, driver="llama", port=port) as decoder:
        with gateway("proxy", [port]) as door:
            with connected(door.port) as sock:
                sock.sendall(post(question(LONG, max_tokens=2000, ignore_eos=True)))
                read_until(sock, b'"content":"', count=4, within_s=30)
                decoder.kill()
                end = read_until(sock, b"data: [DONE]\n\n", within_s=3)
            assert b'"error"' in end
            with engine("decoder", *flags, driver="llama", port=port):
                body = question("Hello!", stream=False, max_tokens=4)

                def answers() -> bool:
                    answer = httpx2.post(door.url + CHAT, content=body, headers=JSON, timeout=60)
                    return answer.status_code == 200

                wait_until(answers, within_s=10, what="the decoder's return")
