"""What the echo engine's scripts do, seen by a caller over gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field

from ark_trio.engine.echo.engine import open_echo
from ark_trio.errors import (
    ArkError,
    BadBackend,
    InvalidRequest,
    NotImplementedByEngine,
    Overloaded,
    UnknownModel,
)
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.step import ChoiceDelta, Usage
from ark_trio.protocol.value import fill_value, from_value
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.server import open_server
from ark_wire import ark_pb2
from ark_wire.inference import ControlType

GET_STATUS = ControlType(ControlType.GetStatus)


@define(eq=False)
class Answer:
    messages: list[ark_pb2.InferenceResponse] = field(factory=list)
    times: list[float] = field(factory=list)
    error: ArkError | None = None

    @property
    def deltas(self) -> list[ChoiceDelta]:
        decoder = ResponseDecoder()
        steps = [decoder.feed(message) for message in self.messages] + [decoder.end()]
        return [choice for step in steps for choice in step.choices]

    @property
    def usages(self) -> list[Usage | None]:
        decoder = ResponseDecoder()
        return [decoder.feed(message).usage for message in self.messages]

    @property
    def text(self) -> str:
        return "".join(delta.content for delta in self.deltas)

    @property
    def finish(self) -> str | None:
        return self.deltas[-1].finish_reason

    @property
    def output_keys(self) -> set[str]:
        return {key for message in self.messages for key in message.outputs}


def request(text: str, /, *, method: str = "", model: str = "", **inputs: Any) -> Any:
    made = ark_pb2.InferenceRequest(req_id="r", model_name=model, method=method)
    if method in ("", "chat"):
        fill_value(made.inputs["messages.role"], [b"system", b"user"])
        fill_value(made.inputs["messages.content"], [b"", text.encode()])
    for key, value in inputs.items():
        fill_value(made.inputs[key], value)
    return made


async def ask(channel: ArkChannel, asked: ark_pb2.InferenceRequest) -> Answer:
    answer = Answer()
    mailbox = Mailbox[ark_pb2.InferenceResponse]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.stream, asked, mailbox)
        try:
            while batch := await mailbox.take():
                answer.messages += batch
                answer.times += [trio.current_time()] * len(batch)
        except ArkError as error:
            answer.error = error
    return answer


@asynccontextmanager
async def echo(role: Any = "decoder") -> AsyncIterator[ArkChannel]:
    async with (
        open_bridge() as bridge,
        open_echo(role=role, names=["echo", "other"]) as engine,
        open_server(bridge, engine, "127.0.0.1", 0) as server,
        open_channel(bridge, "127.0.0.1", server.port) as channel,
    ):
        yield channel


async def says(text: str, /, **more: Any) -> Answer:
    async with echo() as channel:
        return await ask(channel, request(text, **more))


@pytest.mark.parametrize(
    "text", ["hello, big  world ", "x=1 is an equation", "a=b", "{1: 2}", '{"a": 1}', "", " "]
)
async def test_text_that_is_no_script_is_echoed(text: str):
    answer = await says(text)
    assert (answer.text, answer.finish) == (text, "stop")


async def test_each_word_is_a_message_and_the_first_has_the_role():
    answer = await says("one two three")
    assert [delta.content for delta in answer.deltas] == ["one ", "two ", "three", ""]
    choices = [from_value(message.outputs["choice"]) for message in answer.messages]
    assert [choice["message"].get("role") for choice in choices] == ["assistant", None, None, None]


@pytest.mark.parametrize("script", ["count=3", '{"count": 3}'])
async def test_count_says_so_many_numbers(script: str):
    assert (await says(script)).text == "0 1 2 "


async def test_text_is_said_over_and_over_until_count():
    assert (await says('{"text": "a b", "count": 5}')).text == "a ba ba "


async def test_size_makes_messages_big():
    answer = await says("count=2 size=300000")
    assert [len(delta.content) for delta in answer.deltas] == [300_000, 300_000, 0]


async def test_gaps_and_first_delay_are_kept():
    answer = await says("count=3 first_delay_s=0.2 gap_s=0.05")
    gaps = [b - a for a, b in zip(answer.times, answer.times[1:], strict=False)]
    assert all(0.03 < gap < 0.2 for gap in gaps), gaps


async def test_burst_says_several_at_a_time():
    answer = await says("count=6 burst=3 gap_s=0.1")
    assert answer.times[2] - answer.times[0] < 0.05 < answer.times[3] - answer.times[2]


async def test_choices_take_turns_and_each_finishes():
    answer = await says("count=2", n=3)
    assert [delta.index for delta in answer.deltas] == [0, 1, 2] * 3
    assert [delta.finish_reason for delta in answer.deltas[-3:]] == ["stop"] * 3


async def test_what_echo_repeats_is_not_counted_as_generated():
    asked = {"prompt": "count=10", "method": "completion", "echo": True}
    alone = await says("", max_new_tokens=0, **asked)
    assert (alone.text, alone.finish) == ("count=10", "length")
    more = await says("", max_new_tokens=2, **asked)
    assert (more.text, more.finish) == ("count=100 1 ", "length")


async def test_max_new_tokens_cuts_with_length():
    answer = await says("count=10", max_new_tokens=3)
    assert (answer.text, answer.finish) == ("0 1 2 ", "length")
    exact = await says("count=3", max_new_tokens=3)
    assert (exact.text, exact.finish) == ("0 1 2 ", "stop")


@pytest.mark.parametrize(("at", "said"), [(0, ""), (2, "0 1 ")])
async def test_it_fails_where_told_with_the_status_told(at: int, said: str):
    answer = await says(f"count=5 fail_at={at} status=RESOURCE_EXHAUSTED")
    assert answer.text == said
    assert isinstance(answer.error, Overloaded)


async def test_a_failure_carries_message_code_and_param():
    script = (
        '{"fail_at": 0, "status": "INVALID_ARGUMENT", "message": "m", "code": "c", "param": "p"}'
    )
    error = (await says(script)).error
    assert isinstance(error, InvalidRequest)
    assert (error.message, error.code, error.param) == ("m", "c", "p")


async def test_a_hang_says_nothing_more_and_the_cancel_is_on_record():
    async with echo() as channel:
        with trio.move_on_after(0.2):
            await ask(channel, request("count=5 hang_at=2"))
            pytest.fail("it ended")
        with trio.fail_after(1):
            while (await channel.control(GET_STATUS))["busy"]:
                await trio.sleep(0.001)
        status = await channel.control(GET_STATUS)
        assert status["cancelled"] == 1
        assert status["last_req_id"] == "r"
        [call] = status["calls"]
        assert (call["ended"], call["sent"]) == ("cancelled", 2)


async def test_reasoning_comes_before_the_text():
    answer = await says('{"reasoning": "let me see", "text": "done"}')
    assert "".join(delta.reasoning for delta in answer.deltas) == "let me see"
    assert answer.text == "done"
    kinds = [bool(delta.reasoning) for delta in answer.deltas]
    assert kinds == sorted(kinds, reverse=True)


async def test_a_tool_call_is_cut_over_messages_and_adds_up():
    answer = await says('{"tool": [{"name": "f", "arguments": {"a": [1, 2]}}], "pieces": 4}')
    calls = [call for delta in answer.deltas for call in delta.tool_calls]
    assert (calls[0].name, calls[0].id) == ("f", "call_0")
    assert "".join(call.arguments for call in calls) == '{"a":[1,2]}'
    assert len(calls) == 1 + 4
    assert answer.finish == "tool_calls"


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ("each", [1, 2, 2]),
        ("last", [None, None, 2]),
        ("alone", [None, None, None, 2]),
        ("never", [None] * 3),
    ],
)
async def test_usage_comes_when_told(usage: str, told: list[int | None]):
    answer = await says(f"count=2 usage={usage}")
    assert [found and found.completion_tokens for found in answer.usages] == told


async def test_the_last_usage_is_that_of_all_choices():
    answer = await says("count=2 n=2")
    assert [found and found.completion_tokens for found in answer.usages] == [None] * 5 + [4]


async def test_cut_characters_arrive_whole():
    answer = await says('{"text": "naïve 日本語 🎉", "cut_bytes": 1}')
    assert answer.text == "naïve 日本語 🎉"
    assert "choice" not in answer.output_keys


@pytest.mark.parametrize(
    ("shape", "nested", "flat"),
    [("both", True, True), ("nested", True, False), ("flat", False, True)],
)
async def test_shapes_choose_the_keys(shape: str, nested: bool, flat: bool):
    answer = await says(f"count=1 shape={shape}")
    assert ("choice" in answer.output_keys, "choice.message.content" in answer.output_keys) == (
        nested,
        flat,
    )
    assert ("usage" in answer.output_keys, "usage.total_tokens" in answer.output_keys) == (
        nested,
        flat,
    )
    assert (answer.text, answer.finish) == ("0 ", "stop")


async def test_an_answer_may_lack_its_finish():
    answer = await says("count=1 finish=none")
    assert (answer.text, answer.finish, answer.error) == ("0 ", None, None)


async def test_the_finish_may_come_with_the_last_text():
    answer = await says("count=2 merge_finish=true")
    assert [(delta.content, delta.finish_reason) for delta in answer.deltas] == [
        ("0 ", None),
        ("1 ", "stop"),
    ]


async def test_a_stray_choice_and_garbage_can_be_sent():
    assert (await says("count=1 stray_choice=7")).deltas[0].index == 7
    garbage = await says("count=2 garbage_at=1")
    with pytest.raises(BadBackend):
        _ = garbage.deltas


async def test_logprobs_are_made_up_when_asked():
    answer = await says("count=1", logprobs=1)
    assert answer.deltas[0].logprobs[0]["token"] == "0 "
    assert not (await says("count=1")).deltas[0].logprobs


@pytest.mark.parametrize(
    "script", ["count=x", "count=-1", "count=1 zip=2", "count=1 usage=often", "n=0", "gap_s=true"]
)
async def test_a_bad_script_says_what_is_wrong(script: str):
    error = (await says(script)).error
    assert isinstance(error, InvalidRequest)
    assert script.rsplit(maxsplit=1)[-1].partition("=")[0] in error.message


async def test_two_streams_with_one_gap_fall_on_the_same_instants():
    async with echo() as channel:
        answers: list[Answer] = []

        async def run(wait_s: float) -> None:
            await trio.sleep(wait_s)
            answers.append(await ask(channel, request("count=6 gap_s=0.05")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, 0)
            nursery.start_soon(run, 0.02)
        # Seen at the same turn of the loop, or the next to it.
        phases = [sorted(instant % 0.05 for instant in answer.times) for answer in answers]
        assert abs(phases[0][2] - phases[1][2]) < 0.01


async def test_a_caller_that_does_not_read_is_waited_for():
    async with echo() as channel:
        mailbox = Mailbox[ark_pb2.InferenceResponse](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.stream, request("count=1000000 size=1000"), mailbox)
            await trio.sleep(0.5)
            status = await channel.control(GET_STATUS)
            assert 100 < status["calls"][0]["sent"] < 1500
            nursery.cancel_scope.cancel()


async def test_methods_it_lacks_are_unimplemented():
    async with echo() as channel:
        answer = await ask(channel, request("x", method="classification"))
        assert isinstance(answer.error, NotImplementedByEngine)
        with pytest.raises(NotImplementedByEngine):
            await channel.call(request("x", method="classification"))


async def test_other_models_are_not_found():
    async with echo() as channel:
        assert (await ask(channel, request("hi", model="other"))).text == "hi"
        answer = await ask(channel, request("hi", model="gpt-9"))
        assert isinstance(answer.error, UnknownModel)


async def test_tokens_go_there_and_back():
    async with echo() as channel:
        made = await channel.call(request("", method="tokenize", text="hé🎉"))
        tokens = from_value(made.outputs["tokens"])
        assert from_value(made.outputs["count"]) == 3
        back = await channel.call(request("", method="detokenize", tokens=tokens))
        assert from_value(back.outputs["text"]) == "hé🎉"
        with pytest.raises(InvalidRequest):
            await channel.call(request("", method="detokenize", tokens=[-1]))


async def test_a_completions_prompt_is_its_script():
    answer = await says("", method="completion", prompt="count=2")
    assert answer.text == "0 1 "


async def test_the_prefiller_sends_a_state_under_its_header():
    async with echo("prefiller") as channel:
        answer = await ask(channel, request("", method="prefill", tokens=list(range(40_000))))
        header = from_value(answer.messages[0].outputs["prefill.header"])
        chunks = [message.outputs["prefill.chunk"].bytes_ for message in answer.messages[1:]]
        assert header["tokens"] == 40_000
        assert sum(map(len, chunks)) == header["bytes"]
        assert max(map(len, chunks)) <= 1 << 20
        assert isinstance((await ask(channel, request("hi"))).error, NotImplementedByEngine)


async def test_health_and_status_are_told():
    async with echo() as channel:
        assert await channel.control(ControlType(ControlType.HealthCheck)) == {"status": "ok"}
        status = await channel.control(GET_STATUS)
        assert status["models"] == ["echo", "other"]
        assert (status["role"], status["busy"], status["queued"]) == ("decoder", 0, 0)
        metrics = await channel.control(ControlType(ControlType.PullMetrics))
        assert (metrics["busy"], metrics["calls_finished_total"]) == (0, 0)
        with pytest.raises(NotImplementedByEngine):
            await channel.control(ControlType(ControlType.SetMetrics))
