import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import BadBackend
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.sse import DONE
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from tests.support.answers import chunks, deltas, events
from tests.support.strategies import STEPS

FIRST = {"role": "assistant", "content": ""}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def open_stream(**options):
    return ChatStream(id="chatcmpl-1", created=7, model='m"1', **options)


def step(content="", index=0, usage=None, **fields):
    return Step(choices=(ChoiceDelta(index=index, content=content, **fields),), usage=usage)


def run(*steps, **options):
    stream = open_stream(**options)
    return b"".join([*map(stream.feed, steps), stream.end()])


def test_the_bytes_of_a_whole_stream():
    head = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m\\"1",'
        b'"choices":[{"index":0,"delta":'
    )
    goes_on = b',"logprobs":null,"finish_reason":null}]}\n\n'
    assert run(step("hi"), step('"\n'), step(finish_reason="stop")) == b"".join(
        [
            head + b'{"role":"assistant","content":""}' + goes_on,
            head + b'{"content":"hi"}' + goes_on,
            head + b'{"content":"\\"\\n"}' + goes_on,
            head + b'{},"logprobs":null,"finish_reason":"stop"}]}\n\n',
            b"data: [DONE]\n\n",
        ]
    )


def test_content_and_finish_reason_together_are_two_chunks():
    assert deltas(run(step("hi", finish_reason="length"))) == [
        (0, FIRST, None),
        (0, {"content": "hi"}, None),
        (0, {}, "length"),
    ]


def test_a_step_that_adds_nothing_is_no_bytes():
    stream = open_stream()
    assert stream.feed(Step(usage=Usage(prompt_tokens=1))) == b""
    assert len(chunks(stream.feed(step()))) == 1
    assert stream.feed(step()) == b""
    assert stream.feed(Step()) == b""


def test_every_choice_has_its_first_and_its_last_chunk():
    steps = [
        step("a", 1),
        Step(choices=(ChoiceDelta(index=0, content="b"), ChoiceDelta(index=1, content="c"))),
        step(index=1, finish_reason="stop"),
        step("d", 0, finish_reason="length"),
    ]
    got = deltas(run(*steps, n=2))
    assert [(delta, end) for index, delta, end in got if index == 0] == [
        (FIRST, None),
        ({"content": "b"}, None),
        ({"content": "d"}, None),
        ({}, "length"),
    ]
    assert [(delta, end) for index, delta, end in got if index == 1] == [
        (FIRST, None),
        ({"content": "a"}, None),
        ({"content": "c"}, None),
        ({}, "stop"),
    ]


def test_reasoning_goes_by_both_names():
    got = deltas(run(step(reasoning="hm"), step("x", finish_reason="stop")))
    assert got[1:3] == [
        (0, {"reasoning_content": "hm", "reasoning": "hm"}, None),
        (0, {"content": "x"}, None),
    ]


def test_a_tool_call_begins_with_its_head():
    steps = [
        step(tool_calls=(ToolCallDelta(index=0, id="c1", name="f", arguments='{"a"'),)),
        step(tool_calls=(ToolCallDelta(index=0, id="c1", name="f", arguments=":1}"),)),
        step(tool_calls=(ToolCallDelta(index=1, name="g"),)),
        step(finish_reason="tool_calls"),
    ]
    got = [delta for _, delta, _ in deltas(run(*steps))]
    head = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    other = {"id": "call_1_0_1", "type": "function", "function": {"name": "g", "arguments": ""}}
    assert got[1:-1] == [
        {"tool_calls": [{"index": 0, **head}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {"tool_calls": [{"index": 1, **other}]},
    ]


def test_an_answer_with_tool_calls_ends_in_tool_calls():
    call = step(tool_calls=(ToolCallDelta(index=0, id="c", name="f"),))
    assert deltas(run(call, step(finish_reason="stop")))[-1] == (0, {}, "tool_calls")
    assert deltas(run(call, step(finish_reason="length")))[-1] == (0, {}, "length")


def test_a_tool_call_without_a_name_is_the_engine_s_fault():
    with pytest.raises(BadBackend):
        run(step(tool_calls=(ToolCallDelta(index=0, arguments="{}"),)))


def test_log_probabilities_stand_on_the_step_s_first_chunk():
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    call = ToolCallDelta(index=0, id="c", name="f")
    got = chunks(run(step("a", logprobs=(entry,), tool_calls=(call,), finish_reason="stop")))
    assert [chunk["choices"][0]["logprobs"] for chunk in got] == [
        None,
        {"content": [entry], "refusal": None},
        None,
        None,
    ]
    assert got[1]["choices"][0]["delta"] == {"content": "a"}


def test_log_probabilities_without_text_have_a_chunk():
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    got = chunks(run(step(logprobs=(entry,)), step(finish_reason="stop")))
    assert got[1]["choices"][0]["delta"] == {"content": ""}
    assert got[1]["choices"][0]["logprobs"] == {"content": [entry], "refusal": None}


def test_usage_is_told_only_when_asked():
    usage = Usage(prompt_tokens=5, completion_tokens=2)
    got = chunks(run(step("a", usage=usage), step(finish_reason="stop")))
    assert all("usage" not in chunk for chunk in got)


def test_usage_comes_last_with_no_choices_and_is_null_before():
    first = Usage(prompt_tokens=5, completion_tokens=1)
    last = Usage(prompt_tokens=5, completion_tokens=2)
    steps = [step("a", usage=first), step(finish_reason="stop"), Step(usage=last)]
    *before, final = chunks(run(*steps, include_usage=True))
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in before)
    assert (final["choices"], final["usage"]) == ([], USAGE)
    assert final["id"] == "chatcmpl-1"


def test_usage_that_the_engine_never_told_is_null():
    got = chunks(run(step("a", finish_reason="stop"), include_usage=True))
    assert (got[-1]["choices"], got[-1]["usage"]) == ([], None)


def test_continuous_usage_is_on_every_chunk():
    usage = Usage(prompt_tokens=5, completion_tokens=2)
    steps = [step("a"), step("b", usage=usage), step(finish_reason="stop")]
    got = chunks(run(*steps, continuous_usage=True))
    assert [chunk["usage"] for chunk in got] == [None, None, USAGE, USAGE]
    got = chunks(run(*steps, continuous_usage=True, include_usage=True))
    assert [chunk["usage"] for chunk in got] == [None, None, USAGE, USAGE, USAGE]


@pytest.mark.parametrize("steps", [[], [step("a")], [step("a", 0, finish_reason="stop")]])
def test_a_stream_without_every_end_is_the_engine_s_fault(steps):
    stream = open_stream(n=2)
    for one in steps:
        stream.feed(one)
    with pytest.raises(BadBackend):
        stream.end()


def test_an_end_is_told_once():
    stream = open_stream()
    stream.feed(step("a", finish_reason="stop"))
    assert stream.feed(step(finish_reason="stop")) == b""
    assert stream.end() == DONE


@pytest.mark.parametrize(
    "more",
    [{"content": "b"}, {"reasoning": "b"}, {"tool_calls": (ToolCallDelta(index=0, name="f"),)}],
)
def test_more_after_the_end_is_the_engine_s_fault(more):
    stream = open_stream()
    stream.feed(step(finish_reason="stop"))
    with pytest.raises(BadBackend):
        stream.feed(step(**more))


@pytest.mark.parametrize("index", [-1, 1])
def test_a_choice_that_nobody_asked_for_is_the_engine_s_fault(index):
    with pytest.raises(BadBackend):
        open_stream().feed(step("a", index))


def test_an_irregular_end_is_the_engine_s_fault():
    with pytest.raises(BadBackend):
        open_stream().feed(step(finish_reason="abort"))


def test_a_failure_is_an_error_and_done():
    stream = open_stream()
    stream.feed(step("a"))
    assert list(events(stream.fail(BadBackend("It broke.")))) == [
        {"error": {"message": "It broke.", "type": "server_error", "param": None, "code": None}},
        "[DONE]",
    ]


def expect_grammar(stream, *, n, include_usage, ended):
    """Role, deltas, one finish a choice; then usage if asked for, or the error; then [DONE]."""
    *said, done = events(stream)
    assert done == "[DONE]"
    if not ended:
        assert list(said.pop()) == ["error"]
    elif include_usage:
        assert said.pop()["choices"] == []
    finished = dict.fromkeys(range(n), False)
    begun = dict.fromkeys(range(n), False)
    for chunk in said:
        assert ("usage" in chunk) == include_usage
        (choice,) = chunk["choices"]
        index, delta, reason = choice["index"], choice["delta"], choice["finish_reason"]
        assert not finished[index]
        assert (delta == FIRST) == (not begun[index])
        assert (delta == {}) == (reason is not None)
        assert all(part or (part == "" and delta == FIRST) for part in delta.values()) or (
            choice["logprobs"] is not None
        )
        begun[index], finished[index] = True, reason is not None
    if ended:
        assert all(finished.values())


@given(st.lists(STEPS, max_size=6), st.integers(1, 6), st.booleans())
def test_every_stream_obeys_the_grammar_whatever_the_engine_says(steps, n, include_usage):
    stream = open_stream(n=n, include_usage=include_usage)
    body = b""
    try:
        for each in steps:
            body += stream.feed(each)
        body += stream.end()
        ended = True
    except BadBackend as error:
        body += stream.fail(error)
        ended = False
    expect_grammar(body, n=n, include_usage=include_usage, ended=ended)


@given(st.lists(st.text(max_size=4), max_size=5), st.integers(1, 3), st.booleans())
def test_every_regular_stream_obeys_the_grammar(words, n, include_usage):
    steps = [step(word, index) for word in words for index in range(n)]
    ends = [step(index=index, finish_reason="stop") for index in range(n)]
    body = run(*steps, *ends, n=n, include_usage=include_usage)
    expect_grammar(body, n=n, include_usage=include_usage, ended=True)
