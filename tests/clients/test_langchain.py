"""langchain-openai and langchain-deepseek: streams, a tool loop, structured output, an error, an abort, reasoning."""

from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.clients.conftest import MODEL, Stack

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore"),  # their own, not ours to mend
]

CALL = '{"tool": [{"name": "add", "arguments": {"a": 2, "b": 3}}], "pieces": 4}'


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class City(BaseModel):
    """A city."""

    name: str


def settings_of(more: dict[str, Any]) -> Any:
    return {"model": MODEL, "api_key": SecretStr("none"), "max_retries": 0, "timeout": 60, **more}


def chat_openai(stack: Stack, **more: Any) -> Any:
    return ChatOpenAI(base_url=stack.base_url, **settings_of(more))


def chat_deepseek(stack: Stack, **more: Any) -> Any:
    return ChatDeepSeek(**{"api_base": stack.base_url, **settings_of(more)})


MAKERS = [chat_openai, chat_deepseek]


@pytest.mark.parametrize("make", MAKERS)
def test_streams_add_up_to_the_answer(stack: Stack, make):
    llm = make(stack, temperature=0, max_tokens=12, seed=1)
    streamed = "".join(str(chunk.content) for chunk in llm.stream("one two three"))
    assert streamed == llm.invoke("one two three").content
    assert streamed


@pytest.mark.parametrize("make", MAKERS)
def test_a_tool_loop(echo: Stack, make):
    llm = make(echo).bind_tools([add])
    first = HumanMessage(CALL)
    answer = llm.invoke([first])
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
    result = ToolMessage(str(add.invoke(call["args"])), tool_call_id=call["id"])
    second = llm.invoke([first, answer, result, HumanMessage("It is 5.")])
    assert second.content == "It is 5."
    chunks = list(llm.stream([first]))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    assert joined.tool_calls[0]["args"] == {"a": 2, "b": 3}


def test_structured_output_follows_its_schema(real: Stack):
    llm = chat_openai(real, temperature=0, max_tokens=64)
    city = llm.with_structured_output(City, method="json_schema").invoke("Name a city.")
    assert isinstance(city, City)


@pytest.mark.parametrize("make", MAKERS)
def test_an_error_is_raised_with_its_place(stack: Stack, make):
    with pytest.raises(openai.BadRequestError) as caught:
        make(stack, temperature=7).invoke("hi")
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("make", MAKERS)
def test_an_abort_in_mid_stream_reaches_the_decoder(echo: Stack, make):
    before = echo.cancelled()
    stream = make(echo).stream("count=1000000 gap_s=0.01")
    for _ in zip(range(4), stream, strict=False):
        pass
    stream.close()
    echo.await_cancel(before)


def test_an_abort_in_mid_stream_frees_the_real_slot(real: Stack):
    before = real.cancelled()
    stream = chat_deepseek(real, max_tokens=2000).stream("Write a very long story. Do not stop.")
    for _ in zip(range(4), stream, strict=False):
        pass
    stream.close()
    real.await_cancel(before)


def test_deepseek_s_client_sees_the_reasoning(echo: Stack):
    script = '{"reasoning": "let me see", "text": "Yes."}'
    answer = chat_deepseek(echo).invoke(script)
    assert answer.content == "Yes."
    assert answer.additional_kwargs["reasoning_content"] == "let me see"
    chunks = list(chat_deepseek(echo).stream(script))
    reasoning = "".join(c.additional_kwargs.get("reasoning_content", "") for c in chunks)
    assert reasoning == "let me see"


def test_deepseek_s_client_sees_reasoning_that_the_engine_left_in_the_text(echo: Stack):
    answer = chat_deepseek(echo).invoke('{"text": "<think>let me see</think> Yes."}')
    assert answer.content == "Yes."
    assert answer.additional_kwargs["reasoning_content"] == "let me see"
