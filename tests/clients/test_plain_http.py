"""What has no SDK: tokens, traces, reasoning and constraints by hand, on the echo engine and the real model."""

from typing import Any

import httpx2
import pytest

from tests.clients.conftest import MODEL, Stack
from tests.support.conform import expect

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]


def post(stack: Stack, path: str, **body: Any) -> Any:
    answer = httpx2.post(f"{stack.door.url}{path}", json={"model": MODEL, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(stack: Stack, content: str, **more: Any) -> Any:
    body = {"messages": [{"role": "user", "content": content}], **more}
    answer = post(stack, "/v1/chat/completions", **body)
    expect("ChatCompletion", answer)
    return answer["choices"][0]["message"]


def test_tokens_there_and_back(stack: Stack):
    there = post(stack, "/tokenize", prompt="The sky is blue.")
    expect("Tokens", there)
    assert there["count"] == len(there["tokens"]) > 3
    back = post(stack, "/detokenize", tokens=there["tokens"])
    assert back == {"prompt": "The sky is blue."}
    talk = post(stack, "/tokenize", messages=[{"role": "user", "content": "The sky is blue."}])
    assert talk["count"] >= there["count"]


def test_a_completion_of_token_ids_is_that_of_their_text(stack: Stack):
    tokens = post(stack, "/tokenize", prompt="Once upon a time")["tokens"]
    options: Any = {"max_tokens": 6, "temperature": 0}
    texts = [
        post(stack, "/v1/completions", prompt=prompt, **options)["choices"][0]["text"]
        for prompt in ("Once upon a time", tokens)
    ]
    assert texts[0] == texts[1] != ""


def test_a_prompt_is_echoed_before_its_completion(echo: Stack):
    body: Any = {"prompt": ["one two", "three"], "echo": True}
    answer = post(echo, "/v1/completions", **body)
    assert [choice["text"] for choice in answer["choices"]] == ["one twoone two", "threethree"]


@pytest.mark.parametrize(
    ("constraint", "allowed"),
    [
        ({"structured_outputs": {"choice": ["red", "green"]}}, {"red", "green"}),
        ({"guided_choice": ["red", "green"]}, {"red", "green"}),
        ({"guided_grammar": 'root ::= "red" | "green"'}, {"red", "green"}),
        ({"structured_outputs": {"grammar": 'root ::= "red"'}}, {"red"}),
        ({"structured_outputs": {"json": {"const": "red"}}}, {'"red"'}),
        ({"guided_json": '{"const": "red"}'}, {'"red"'}),
    ],
)
def test_every_spelling_of_a_constraint_binds_the_real_model(real: Stack, constraint, allowed):
    said = chat(real, "What is your favourite colour?", temperature=0, max_tokens=12, **constraint)
    assert said["content"] in allowed


def test_best_of_returns_the_likeliest_of_the_real_model_s_choices(real: Stack):
    answer = post(
        real, "/v1/completions", prompt="The capital of France is", best_of=3, max_tokens=4, seed=1
    )
    expect("Completion", answer)
    assert len(answer["choices"]) == 1
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] > 4  # all three were generated


def test_log_probabilities_of_the_real_model(real: Stack):
    body: Any = {"prompt": "The sky is", "max_tokens": 3, "temperature": 0, "logprobs": 2}
    answer = post(real, "/v1/completions", **body)
    expect("Completion", answer)
    logprobs = answer["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == answer["choices"][0]["text"]
    assert all(2 <= len(top) <= 3 for top in logprobs["top_logprobs"])


def test_reasoning_can_be_left_out_or_left_in(echo: Stack):
    script = '{"reasoning": "let me see", "text": "Yes."}'
    assert chat(echo, script)["reasoning"] == "let me see"
    bare = {"role": "assistant", "content": "Yes.", "refusal": None}
    assert chat(echo, script, include_reasoning=False) == bare
    joined = chat(echo, script, separate_reasoning=False)
    assert joined["content"] == "<think>\nlet me see\n</think>\n\nYes."


def test_deepseek_s_tool_calls_in_the_text_are_told_apart(echo: Stack):
    text = (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\\n```json\\n"
        '{\\"a\\": 1}\\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    )
    tools = [{"type": "function", "function": {"name": "add"}}]
    message = chat(echo, f'{{"text": "{text}", "cut_bytes": 3}}', tools=tools)
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert message["content"] is None
