from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.value import from_value
from ark_wire import ark_pb2
from tests.support.strategies import STEPS


def decoded(step):
    """The step as the other side has it, put together from its messages."""
    decoder = ResponseDecoder()
    wire = [r.SerializeToString() for r in encode_step(step, req_id="r", model="m")]
    steps = [decoder.feed(ark_pb2.InferenceResponse.FromString(raw)) for raw in wire]
    choices = tuple(delta for part in steps for delta in part.choices)
    usages = [part.usage for part in steps if part.usage is not None]
    assert len(usages) <= 1
    return Step(choices=choices, usage=usages[0] if usages else None)


ENTRY = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
RICH = ChoiceDelta(
    content="a",
    reasoning="hm",
    tool_calls=(
        ToolCallDelta(index=0, id="c1", name="f", arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
    ),
    logprobs=(ENTRY,),
    finish_reason="tool_calls",
)


@given(STEPS, st.integers(0, 100))
@example(Step(choices=(RICH, evolve(RICH, index=1)), usage=Usage(prompt_tokens=5)), 3)
def test_a_step_comes_back_as_it_went(step, cached):
    assert decoded(step) == step
    if step.usage is not None:
        told = evolve(step, usage=evolve(step.usage, cached_tokens=cached))
        assert decoded(told) == told


def outputs(step, **options):
    (response,) = encode_step(step, req_id="r", model="m", **options)
    assert (response.req_id, response.model_name) == ("r", "m")
    return {key: from_value(value) for key, value in response.outputs.items()}


def test_flat_copies_stand_beside_the_nested_choice():
    delta = ChoiceDelta(index=1, content="grüße", finish_reason="stop")
    assert outputs(Step(choices=(delta,)), first=True) == {
        "choice": {
            "index": 1,
            "message": {"role": "assistant", "content": "grüße"},
            "finish_reason": "stop",
        },
        "choice.index": 1,
        "choice.message.role": b"assistant",
        "choice.message.content": "grüße".encode(),
        "choice.finish_reason": b"stop",
    }


def test_role_belongs_to_the_first_message_and_finish_reason_to_the_last():
    got = outputs(Step(choices=(ChoiceDelta(content="a"),)))
    assert got["choice"] == {"index": 0, "message": {"content": "a"}}
    assert set(got) == {"choice", "choice.index", "choice.message.content"}


def test_usage_alone_is_a_message():
    usage = Usage(prompt_tokens=5, completion_tokens=2, reasoning_tokens=1, cached_tokens=3)
    assert outputs(Step(usage=usage)) == {
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
        "usage.prompt_tokens": 5,
        "usage.completion_tokens": 2,
        "usage.total_tokens": 7,
        "cache": {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2},
        "cache.prompt_cache_hit_tokens": 3,
        "cache.prompt_cache_miss_tokens": 2,
    }


def test_usage_rides_on_the_last_message_of_a_step():
    choices = (ChoiceDelta(index=0, content="a"), ChoiceDelta(index=1, content="b"))
    first, last = encode_step(Step(choices=choices, usage=Usage()), req_id="r", model="m")
    assert "usage" not in first.outputs
    assert "usage" in last.outputs


def test_an_empty_step_is_no_message():
    assert encode_step(Step(), req_id="r", model="m") == []
