"""langchain-openai and langchain-deepseek: streams, a tool loop, structured output, an error, an abort, reasoning."""

from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.clients.conftest import MODEL, MUST_CALL, Stack

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore"),  # their own, not ours to mend
]


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
def test_a_tool_loop(stack: Stack, make):
    plain = make(stack, temperature=0, max_tokens=100)
    llm = plain.bind_tools([add], **MUST_CALL)
    first = HumanMessage(stack.call)
    answer = llm.invoke([first])
    (call,) = answer.tool_calls
    assert call["name"] == "add"
    result = ToolMessage(str(add.invoke(call["args"])), tool_call_id=call["id"])
    second = plain.invoke([first, answer, result, HumanMessage("It is 5.")])
    assert second.content == "It is 5." if stack.engine == "echo" else second.content
    chunks = list(llm.stream([first]))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    assert [each["args"] for each in joined.tool_calls] == [call["args"]]


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
def test_an_abort_in_mid_stream_reaches_the_decoder(stack: Stack, make):
    before = stack.cancelled()
    stream = make(stack, max_tokens=2000).stream(stack.long_text)
    for _ in zip(range(4), stream, strict=False):
        pass
    stream.close()
    stack.await_cancel(before)


def test_deepseek_s_client_sees_the_reasoning(stack: Stack):
    text, more = stack.thought
    llm = chat_deepseek(stack, extra_body=more)
    answer = llm.invoke(text)
    assert answer.content == "Yes."
    assert answer.additional_kwargs["reasoning_content"] == "let me see"
    chunks = list(llm.stream(text))
    reasoning = "".join(c.additional_kwargs.get("reasoning_content", "") for c in chunks)
    assert reasoning == "let me see"


def test_deepseek_s_client_sees_reasoning_that_the_engine_told_apart(echo: Stack):
    answer = chat_deepseek(echo).invoke('{"reasoning": "let me see", "text": "Yes."}')
    assert answer.content == "Yes."
    assert answer.additional_kwargs["reasoning_content"] == "let me see"
