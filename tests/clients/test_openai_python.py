"""openai-python: sync, async, streaming helpers, `.parse` with a schema."""

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.clients.conftest import MODEL, MUST_CALL, Stack

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]

ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
ASKED: Any = {"model": MODEL, "max_tokens": 100, "temperature": 0}


class City(BaseModel):
    """What the answer must be."""

    name: Literal["Paris", "Rome"]
    millions: int


def client_of(stack: Stack) -> OpenAI:
    return OpenAI(base_url=stack.base_url, api_key="none", max_retries=0, timeout=60)


def ask(content: str) -> Any:
    return [{"role": "user", "content": content}]


def sum_of(call: Any) -> str:
    """What the tool answers to a call, whose arguments must be good."""
    assert call.name == "add"
    given = json.loads(call.arguments)
    assert given.keys() == {"a", "b"}
    return str(given["a"] + given["b"])


def next_turn(message: Any, call: Any) -> Any:
    """What follows a message with a tool call."""
    answer = {"role": "tool", "tool_call_id": call.id, "content": sum_of(call.function)}
    return [message, answer, *ask("It is 5.")]


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


def test_parse_gives_an_instance_of_the_schema(stack: Stack):
    on_echo = stack.engine == "echo"
    text = '{"text": "{\\"name\\": \\"Rome\\", \\"millions\\": 3}"}' if on_echo else "A big city?"
    with client_of(stack) as client:
        parsed = client.chat.completions.parse(
            model=MODEL, messages=ask(text), response_format=City, max_tokens=64, temperature=0
        )
    city = parsed.choices[0].message.parsed
    assert isinstance(city, City)


def test_a_tool_loop(stack: Stack):
    with client_of(stack) as client:
        first = ask(stack.call)
        answer = client.chat.completions.create(**ASKED, **MUST_CALL, messages=first, tools=[ADD])
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message
        assert message.tool_calls is not None
        call: Any = message.tool_calls[0]
        turns: Any = [*first, *next_turn(message, call)]
        second = client.chat.completions.create(**ASKED, messages=turns, tools=[ADD])
        said = second.choices[0].message.content
        assert said == "It is 5." if stack.engine == "echo" else said
        with client.chat.completions.stream(
            **ASKED, **MUST_CALL, messages=first, tools=[ADD]
        ) as stream:
            streamed: Any = stream.get_final_completion().choices[0].message.tool_calls
        assert [json.loads(each.function.arguments) for each in streamed] == [
            json.loads(call.function.arguments)
        ]


def test_functions_of_2023_are_called_and_answered(stack: Stack):
    with client_of(stack) as client:
        asked: Any = {**ASKED, "functions": [ADD["function"]], "function_call": {"name": "add"}}
        first = ask(stack.call)
        answer = client.chat.completions.create(**asked, messages=first)
        assert answer.choices[0].finish_reason == "function_call"
        message = answer.choices[0].message
        assert message.tool_calls is None
        assert message.function_call is not None
        result = {"role": "function", "name": "add", "content": sum_of(message.function_call)}
        turns: Any = [*first, message, result, *ask("It is 5.")]
        second = client.chat.completions.create(**ASKED, messages=turns)
        assert second.choices[0].message.content
        chunks = list(client.chat.completions.create(**asked, messages=first, stream=True))
        deltas = [c.choices[0].delta.function_call for c in chunks]
        arguments = "".join(delta.arguments or "" for delta in deltas if delta is not None)
        assert json.loads(arguments) == json.loads(message.function_call.arguments)
        assert chunks[-1].choices[0].finish_reason == "function_call"


def test_reasoning_is_seen_apart_from_the_answer(stack: Stack):
    text, more = stack.thought
    with client_of(stack) as client:
        asked: Any = {"model": MODEL, "messages": ask(text), "extra_body": more}
        message = client.chat.completions.create(**asked).choices[0].message
        assert message.content == "Yes."
        assert message.model_extra is not None
        assert message.model_extra["reasoning_content"] == "let me see"
        deltas = [
            chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)
        ]
    assert "".join(delta.content or "" for delta in deltas) == "Yes."
    extras = [delta.model_extra or {} for delta in deltas]
    assert "".join(extra.get("reasoning_content", "") for extra in extras) == "let me see"


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


def test_an_abort_in_mid_stream_reaches_the_decoder(stack: Stack):
    before = stack.cancelled()
    with client_of(stack) as client:
        with client.chat.completions.create(
            model=MODEL, messages=ask(stack.long_text), max_tokens=2000, stream=True
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


def test_the_async_client_streams_fails_and_aborts(stack: Stack):
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
                model=MODEL, messages=ask(stack.long_text), max_tokens=2000, stream=True
            ) as long_stream:
                for _ in range(4):
                    await anext(long_stream)

    before = stack.cancelled()
    asyncio.run(main())
    stack.await_cancel(before)


def test_the_async_client_s_tool_loop(stack: Stack):
    async def main() -> str | None:
        async with AsyncOpenAI(base_url=stack.base_url, api_key="none", max_retries=0) as client:
            async with client.chat.completions.stream(
                **ASKED, **MUST_CALL, messages=ask(stack.call), tools=[ADD]
            ) as stream:
                final = await stream.get_final_completion()
            message = final.choices[0].message
            assert message.tool_calls is not None
            call: Any = message.tool_calls[0]
            turns: Any = [*ask(stack.call), *next_turn(message, call)]
            second: ChatCompletion = await client.chat.completions.create(**ASKED, messages=turns)
        return second.choices[0].message.content

    said = asyncio.run(main())
    assert said == "It is 5." if stack.engine == "echo" else said
