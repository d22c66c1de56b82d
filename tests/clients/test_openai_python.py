"""openai-python: sync, async, streaming helpers, `.parse` with a schema."""

import asyncio
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.conftest import MODEL, Stack

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

LONG: dict[str, str] = {
    "echo": "count=1000000 gap_s=0.01",
    "real": "Write a very long story about a fox and a crow. Do not stop.",
}
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        },
    },
}
CALL = '{"tool": [{"name": "add", "arguments": {"a": 2, "b": 3}}], "pieces": 4}'


class City(BaseModel):
    """What the answer must be."""

    name: Literal["Paris", "Rome"]
    millions: int


def client_of(stack: Stack) -> OpenAI:
    return OpenAI(base_url=stack.base_url, api_key="none", max_retries=0, timeout=60)


def ask(content: str) -> Any:
    return [{"role": "user", "content": content}]


def long_text(stack: Stack, request: pytest.FixtureRequest) -> str:
    return LONG["real" if stack is request.getfixturevalue("real") else "echo"]


def test_a_stream_and_the_same_in_one_piece_say_the_same(stack: Stack):
    with client_of(stack) as client:
        question: Any = {
            "model": MODEL,
            "messages": ask("What is the capital of France?"),
            "max_tokens": 16,
            "temperature": 0,
            "seed": 1,
        }
        whole = client.chat.completions.create(**question)
        stream = client.chat.completions.create(
            **question, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert len(said) > 5
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.total_tokens == whole.usage.total_tokens


def test_the_streaming_helper_collects_the_answer(stack: Stack):
    with client_of(stack) as client:
        with client.chat.completions.stream(
            model=MODEL,
            messages=ask("Paris"),
            logprobs=True,
            top_logprobs=2,
            extra_body={"structured_outputs": {"choice": ["Paris", "Rome"]}},
        ) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content
    assert final.choices[0].message.content in ("Paris", "Rome")
    logprobs = final.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content
    assert all(entry.logprob <= 0 for entry in logprobs.content)
    assert all(len(entry.top_logprobs) <= 2 for entry in logprobs.content)


def test_parse_gives_an_instance_of_the_schema(stack: Stack, request: pytest.FixtureRequest):
    on_echo = stack is not request.getfixturevalue("real")
    text = '{"text": "{\\"name\\": \\"Rome\\", \\"millions\\": 3}"}' if on_echo else "A big city?"
    with client_of(stack) as client:
        parsed = client.chat.completions.parse(
            model=MODEL, messages=ask(text), response_format=City, max_tokens=64, temperature=0
        )
    city = parsed.choices[0].message.parsed
    assert isinstance(city, City)


def test_a_tool_loop(echo: Stack):
    with client_of(echo) as client:
        first = ask(CALL)
        answer = client.chat.completions.create(model=MODEL, messages=first, tools=[ADD])
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message
        assert message.tool_calls is not None
        call: Any = message.tool_calls[0]
        assert call.function.arguments == '{"a":2,"b":3}'
        turn: Any = [
            *first,
            message,
            {"role": "tool", "tool_call_id": call.id, "content": "5"},
            *ask("It is 5."),
        ]
        second = client.chat.completions.create(model=MODEL, messages=turn, tools=[ADD])
        assert second.choices[0].message.content == "It is 5."
        with client.chat.completions.stream(model=MODEL, messages=first, tools=[ADD]) as stream:
            streamed: Any = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed[0].function.arguments == '{"a":2,"b":3}'


def test_errors_are_the_sdk_s_own(stack: Stack):
    with client_of(stack) as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model=MODEL, messages=ask("hi"), temperature=7)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody", messages=ask("hi"))
        assert unknown.value.code == "model_not_found"
        assert unknown.value.request_id


def test_a_failure_in_mid_stream_is_raised_after_the_text_before_it(echo: Stack):
    with client_of(echo) as client:
        script = ask("count=5 fail_at=2 status=INTERNAL")
        stream = client.chat.completions.create(model=MODEL, messages=script, stream=True)
        said: list[str | None] = []
        with pytest.raises(openai.APIError):
            said.extend(chunk.choices[0].delta.content for chunk in stream)
    # list.extend keeps what came before the failure.
    assert said == ["", "0 ", "1 "]


def test_an_abort_in_mid_stream_reaches_the_decoder(stack: Stack, request: pytest.FixtureRequest):
    before = stack.cancelled()
    with client_of(stack) as client:
        with client.chat.completions.create(
            model=MODEL, messages=ask(long_text(stack, request)), max_tokens=2000, stream=True
        ) as stream:
            for _ in zip(range(4), stream, strict=False):
                pass
        stack.await_cancel(before)


def test_completions_and_models(stack: Stack):
    with client_of(stack) as client:
        answer = client.completions.create(
            model=MODEL, prompt=["Once upon", "The sky is"], max_tokens=4, temperature=0
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.text for choice in answer.choices)
        streamed = client.completions.create(
            model=MODEL, prompt="Once upon", max_tokens=4, temperature=0, stream=True
        )
        said = "".join(chunk.choices[0].text for chunk in streamed)
        assert said == answer.choices[0].text
        assert MODEL in [model.id for model in client.models.list()]
        assert client.models.retrieve(MODEL).id == MODEL


def test_the_async_client_streams_fails_and_aborts(stack: Stack, request: pytest.FixtureRequest):
    async def main() -> None:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model=MODEL, messages=ask("one two three"), max_tokens=8, stream=True
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].choices[0].finish_reason in ("stop", "length")
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model=MODEL, messages=ask("hi"), n=0)
            async with await client.chat.completions.create(
                model=MODEL, messages=ask(long_text(stack, request)), max_tokens=2000, stream=True
            ) as long_stream:
                for _ in range(4):
                    await anext(long_stream)

    before = stack.cancelled()
    asyncio.run(main())
    stack.await_cancel(before)


def test_the_async_client_s_tool_loop(echo: Stack):
    async def main() -> str | None:
        async with AsyncOpenAI(base_url=echo.base_url, api_key="none", max_retries=0) as client:
            async with client.chat.completions.stream(
                model=MODEL, messages=ask(CALL), tools=[ADD]
            ) as stream:
                final = await stream.get_final_completion()
            calls: Any = final.choices[0].message.tool_calls
            assert calls[0].function.arguments == '{"a":2,"b":3}'
            turn: Any = [
                *ask(CALL),
                final.choices[0].message,
                {"role": "tool", "tool_call_id": calls[0].id, "content": "5"},
                *ask("It is 5."),
            ]
            second = await client.chat.completions.create(model=MODEL, messages=turn)
        return second.choices[0].message.content

    assert asyncio.run(main()) == "It is 5."
