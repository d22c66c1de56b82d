import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.protocol.answer_text import AnswerDecoder
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.tool_text import MARKED
from tests.support.cuts import PLACES, cut

WITH_TOOLS = Reading(syntaxes=MARKED, tool_names=frozenset({"f"}))
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
ENTRY = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -1.5, "bytes": [98]},
    ],
}


def step(content="", index=0, usage=None, **fields):
    return Step(choices=(ChoiceDelta(index=index, content=content, **fields),), usage=usage)


def read(*steps, reading=None):
    """The steps of an answer, and what its end adds."""
    decoder = AnswerDecoder(reading or Reading())
    messages = [m for each in steps for m in encode_step(each, req_id="r", model="m")]
    return [*map(decoder.feed, messages), decoder.end()]


def joined(steps, index=0):
    """Reasoning, content and calls of a choice."""
    deltas = [delta for each in steps for delta in each.choices if delta.index == index]
    calls: dict[int, tuple[str, str]] = {}
    for call in (call for delta in deltas for call in delta.tool_calls):
        name, arguments = calls.get(call.index, ("", ""))
        calls[call.index] = (name + (call.name or ""), arguments + call.arguments)
    text = "".join(delta.content for delta in deltas)
    return "".join(delta.reasoning for delta in deltas), text, list(calls.values())


def test_an_answer_of_plain_text_passes_as_it_is():
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    steps = [step("a"), step(" b ", usage=usage), Step(usage=usage), step(finish_reason="stop")]
    assert read(*steps) == [*steps, Step(choices=(ChoiceDelta(),))]


def test_reasoning_and_calls_in_the_text_are_told_apart():
    steps = [step("<think>hm</think>"), step("So: " + CALL, finish_reason="stop")]
    got = read(*steps, reading=WITH_TOOLS)
    assert joined(got) == ("hm", "So:", [("f", '{"a": 1}')])
    assert got[1].choices[0].finish_reason == "stop"


def test_without_tools_nothing_is_a_call():
    assert joined(read(step(CALL), step(finish_reason="stop")))[1:] == (CALL, [])


def test_what_was_held_comes_with_the_finish_or_with_the_end():
    assert joined(read(step("<thi"), step("nk", finish_reason="length")))[1] == "<think"
    assert joined(read(step("<thi")))[1] == "<thi"
    assert joined(read(step("a <tool"), reading=WITH_TOOLS))[1] == "a <tool"


def test_what_began_like_a_call_when_the_length_cut_it_off_is_no_text():
    for begun in ("<tool", '<tool_call>{"name"'):
        for reason, content in (("length", "a"), ("stop", f"a {begun}")):
            got = joined(read(step(f"a {begun}"), step(finish_reason=reason), reading=WITH_TOOLS))
            assert (got[1].rstrip(), got[2]) == (content, [])


def test_each_choice_is_read_by_itself():
    steps = [step("<think>", 0), step("<think", 1), step("a", 0), step("</b>", 1)]
    got = read(*steps)
    assert joined(got, 0)[:2] == ("a", "")
    assert joined(got, 1)[:2] == ("", "<think</b>")


def test_an_engine_that_tells_them_apart_is_left_alone():
    call = ToolCallDelta(index=0, id="c", name="g", arguments="{}")
    steps = [
        step("<", reasoning="hm"),
        step("<think>no</think>"),
        step("<tool_c", tool_calls=(call,)),
        step(CALL, finish_reason="tool_calls"),
    ]
    got = read(*steps, reading=WITH_TOOLS)
    assert joined(got) == ("hm", "<<think>no</think><tool_c" + CALL, [("g", "{}")])


@pytest.mark.parametrize(
    ("text", "mark", "reasoning", "content"),
    [
        ("hm</think>Yes", "open", "hm", "Yes"),
        ("<think>hm</think>Yes", "off", "", "<think>hm</think>Yes"),
        ("hm</think>Yes", "auto", "", "hm</think>Yes"),
    ],
)
def test_a_model_marks_reasoning_in_its_own_way(text, mark, reasoning, content):
    got = read(step(text), reading=Reading(reasoning=mark))
    assert joined(got)[:2] == (reasoning, content)


def test_reasoning_can_be_left_out():
    steps = [step(reasoning="hm"), step("<think>no</think>Yes", 1), step("Yes")]
    got = read(*steps, reading=Reading(include_reasoning=False))
    assert joined(got, 0)[:2] == ("", "Yes")
    assert joined(got, 1)[:2] == ("", "Yes")


def test_reasoning_can_stay_in_the_text():
    apart = Reading(separate_reasoning=False)
    steps = [step(reasoning="h"), step(reasoning="m"), step("Y"), step("es", finish_reason="stop")]
    assert joined(read(*steps, reading=apart))[:2] == ("", "<think>\nhm\n</think>\n\nYes")
    assert joined(read(step("<think>a</think>b"), reading=apart))[:2] == ("", "<think>a</think>b")
    # What was cut off is not closed for it.
    assert (
        joined(read(step(reasoning="h", finish_reason="length"), reading=apart))[1] == "<think>\nh"
    )


@pytest.mark.parametrize(("shown", "alternatives"), [(None, None), (0, 0), (1, 1), (5, 2)])
def test_only_the_log_probabilities_that_were_asked_for_are_shown(shown, alternatives):
    steps = [step("a", logprobs=(ENTRY,)), step("b", logprobs=(ENTRY,))]
    for said in read(*steps, reading=Reading(top_logprobs=shown))[:2]:
        logprobs = said.choices[0].logprobs
        assert [len(entry["top_logprobs"]) for entry in logprobs] == (
            [] if alternatives is None else [alternatives]
        )


def test_what_the_request_says_is_what_is_read():
    def reading(**fields):
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
        return parse_chat(orjson.dumps(body)).reading

    tools = [{"type": "function", "function": {"name": "f"}}]
    assert reading() == Reading()
    assert reading(logprobs=True).top_logprobs == 0
    assert reading(logprobs=True, top_logprobs=3).top_logprobs == 3
    assert reading(logprobs=False).top_logprobs is None
    assert reading(include_reasoning=False) == Reading(include_reasoning=False)
    assert reading(separate_reasoning=False) == Reading(separate_reasoning=False)
    assert reading(tools=tools).tool_names == {"f"}
    assert reading(tools=tools, tool_choice="none").tool_names == frozenset()


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", CALL, CALL[:20], " ", "a\n", "é"]), max_size=6
    ),
    PLACES,
    st.builds(
        Reading,
        reasoning=st.sampled_from(["auto", "open", "off"]),
        syntaxes=st.sampled_from([(), MARKED, ("json",)]),
        tool_names=st.just(frozenset({"f"})),
        include_reasoning=st.booleans(),
        separate_reasoning=st.booleans(),
    ),
    st.booleans(),
)
def test_the_same_however_the_answer_is_cut(pieces, places, reading, finishes):
    text = "".join(pieces)
    end = [step(finish_reason="stop")] if finishes else []
    whole = joined(read(step(text), *end, reading=reading))
    assert joined(read(*map(step, cut(text, places)), *end, reading=reading)) == whole
