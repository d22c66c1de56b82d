"""Completions: the request's checks and its encoding, the stream, the fold."""

from typing import Any

import orjson
import pytest
from hypothesis import given

from ark_trio.errors import BadBackend, InvalidRequest, Unavailable
from ark_trio.protocol.ark_request import encode_completion
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.completion_fold import CompletionFold
from ark_trio.protocol.completion_request import CompletionRequest, parse_completion
from ark_trio.protocol.completion_stream import CompletionStream
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.several import SeveralAnswers
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.protocol.value import from_value
from tests.support.answers import chunks
from tests.support.strategies import JSON, STEPS

MADE: Any = {"id": "cmpl-1", "created": 7, "model": "m"}


def parse(prompt="hi", **fields):
    return parse_completion(orjson.dumps({"model": "m", "prompt": prompt, **fields}))


def inputs(prompt="hi", **fields):
    asked = parse(prompt, **fields)
    request = encode_completion(asked, asked.prompts[0], req_id="r", model="m")
    assert request.method == "completion"
    return {key: from_value(value) for key, value in request.inputs.items()}


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("hi", ("hi",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_a_prompt_may_have_any_of_four_shapes(prompt, prompts):
    assert parse(prompt) == CompletionRequest(model="m", prompts=prompts)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [[1], [1, -1]]}, "prompt[1][1]"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [[1], "a"]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"suffix": 5}, "suffix"),
        ({"store": True}, "store"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex"),
    ],
)
def test_what_is_wrong_is_a_400_at_its_place(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param


@given(JSON)
def test_any_json_is_a_request_or_a_400(raw):
    for fields in (raw, {"model": "m", "prompt": raw}, {"model": "m", "prompt": "x", "n": raw}):
        try:
            asked = parse_completion(orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS))
            for prompt in asked.prompts:
                encode_completion(asked, prompt, req_id="r", model="m")
        except (InvalidRequest, orjson.JSONEncodeError):
            pass


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"prompt": "hi"}),
        ({"prompt": [1, 2]}, {"prompt": [1, 2]}),
        (
            {"echo": True, "suffix": "!", "max_tokens": 5, "n": 2, "stop": "x"},
            {
                "prompt": "hi",
                "echo": True,
                "suffix": "!",
                "max_new_tokens": 5,
                "n": 2,
                "stop": "x",
            },
        ),
        ({"logprobs": 0}, {"prompt": "hi", "logprobs": 1}),
        (
            {"max_tokens": 0, "echo": True, "logprobs": 5},
            {"prompt": "hi", "max_new_tokens": 0, "echo": True, "logprobs": 5},
        ),
        ({"logprobs": 3}, {"prompt": "hi", "logprobs": 3}),
        ({"best_of": 3}, {"prompt": "hi", "n": 3, "logprobs": 1}),
        ({"best_of": 3, "n": 2, "logprobs": 2}, {"prompt": "hi", "n": 3, "logprobs": 2}),
        ({"best_of": 2, "n": 2, "stream": True}, {"prompt": "hi", "n": 2}),
    ],
)
def test_what_reaches_the_engine(fields, expected):
    assert inputs(**fields) == expected


def test_the_answer_is_streamed_only_with_what_was_asked():
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = parse(stream=True, stream_options=options, n=2, vendor=1)
    assert (asked.stream, asked.include_usage, asked.continuous_usage) == (True, True, True)
    assert (asked.n, asked.best_of, asked.unknown) == (2, 2, ("vendor",))
    assert parse(stream_options=options).include_usage is False
    assert (parse(best_of=2).shown_logprobs, parse().shown_logprobs) == (0, None)


def entry(token, logprob=-0.5, *others):
    top = [{"token": t, "logprob": lp, "bytes": None} for t, lp in [(token, logprob), *others]]
    return {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": top}


def step(content="", index=0, usage=None, **fields):
    return Step(choices=(ChoiceDelta(index=index, content=content, **fields),), usage=usage)


def run(*steps, **options):
    stream = CompletionStream(**MADE, **options)
    return b"".join([*map(stream.feed, steps), stream.end()])


def fold(*steps, **options):
    answer = CompletionFold(**MADE, **options)
    for each in steps:
        answer.feed(each)
    return answer.result()


USAGE = Usage(prompt_tokens=3, completion_tokens=2)
TOTALS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_stream_is_text_then_finish_then_done():
    body = run(step("a"), step(), step("b", finish_reason="length"), step())
    head = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
    assert chunks(body) == [
        {**head, "choices": [{"index": 0, "text": t, "logprobs": None, "finish_reason": f}]}
        for t, f in [("a", None), ("b", None), ("", "length")]
    ]
    assert body.endswith(b"data: [DONE]\n\n")


def test_usage_stands_where_it_was_asked_for():
    steps = [step("a", usage=USAGE), step(finish_reason="stop")]
    last = chunks(run(*steps, include_usage=True))
    assert [chunk["usage"] for chunk in last] == [None, None, TOTALS]
    assert last[-1]["choices"] == []
    each = chunks(run(*steps, continuous_usage=True))
    assert [chunk["usage"] for chunk in each] == [TOTALS, TOTALS]
    assert all("usage" not in chunk for chunk in chunks(run(*steps)))


def test_a_stream_that_fails_ends_in_the_error_and_done():
    end = CompletionStream(**MADE).fail(Unavailable("gone"))
    assert chunks(end)[0]["error"]["message"] == "gone"
    assert end.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("answer", [run, fold])
def test_an_answer_without_end_or_after_its_end_is_the_engine_s_fault(answer):
    for steps in ([step("a")], [step(finish_reason="stop"), step("a")], [step("a", 1)]):
        with pytest.raises(BadBackend):
            answer(*steps)


def test_an_answer_in_one_piece_tells_what_it_cost():
    end = step(finish_reason="stop", usage=USAGE)
    answer = fold(step("a"), end, step())
    assert (answer["object"], answer["usage"]) == ("text_completion", TOTALS)
    assert answer["choices"] == [
        {"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}
    ]


def test_log_probabilities_are_four_lists_over_the_whole_text():
    steps = [
        step("ab", logprobs=(entry("ab", -0.5, ("x", -1.0)),)),
        step("c", logprobs=(entry("c", -0.25),), finish_reason="stop"),
    ]
    whole = {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"ab": -0.5, "x": -1.0}, {"c": -0.25}],
        "text_offset": [0, 2],
    }
    assert fold(*steps, alternatives=2)["choices"][0]["logprobs"] == whole
    parts = [c["choices"][0]["logprobs"] for c in chunks(run(*steps, alternatives=2))]
    assert [part and part["text_offset"] for part in parts] == [[0], [2], None]
    assert fold(*steps, alternatives=0)["choices"][0]["logprobs"] == {**whole, "top_logprobs": None}
    assert fold(*steps)["choices"][0]["logprobs"] is None


def test_the_likeliest_choices_are_returned_of_those_generated():
    steps = [
        step("a", 0, logprobs=(entry("a", -1.0), entry("a", -1.0)), finish_reason="stop"),
        step("b", 1, logprobs=(entry("b", -0.5),), finish_reason="length"),
        step("", 2, finish_reason="stop"),
        step("c", 3, logprobs=(entry("c", -3.0),), finish_reason="stop"),
        step("d", 4, logprobs=(entry("d", -2.0),), finish_reason="stop"),
        step("e", 5, logprobs=(entry("e", -4.0),), finish_reason="stop"),
    ]
    answer = fold(*steps, prompts=2, n=1, generated=3)
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "b", "length"),
        (1, "d", "stop"),
    ]
    assert [c["text"] for c in fold(*steps, n=2, generated=6)["choices"]] == ["b", "a"]


def messages(prompt, *steps):
    return [(prompt, m) for each in steps for m in encode_step(each, req_id="r", model="m")]


def test_several_prompts_are_one_answer_with_their_totals_added():
    decoder = SeveralAnswers(Reading(), prompts=2, choices=2)
    fed = [
        *messages(1, step("b", 1, usage=USAGE)),
        *messages(0, step("a", 0)),
        *messages(0, Step(usage=Usage(prompt_tokens=1, completion_tokens=1, cached_tokens=1))),
        *messages(1, step("<thi", 0)),
    ]
    steps = [decoder.feed(message) for message in fed]
    assert [(delta.index, delta.content) for each in steps for delta in each.choices] == [
        (3, "b"),
        (0, "a"),
        (2, ""),
    ]
    assert steps[0].usage == USAGE
    assert steps[2].usage == Usage(prompt_tokens=4, completion_tokens=3, cached_tokens=1)
    assert [(d.index, d.content) for d in decoder.end().choices if d.content] == [(2, "<thi")]
    with pytest.raises(BadBackend):
        decoder.feed(*messages(0, step("x", 2)))


@given(STEPS)
def test_whatever_an_engine_says_gives_legal_events_or_its_fault(said):
    stream = CompletionStream(**MADE, choices=4, alternatives=1, include_usage=True)
    try:
        body = stream.feed(said) + stream.end()
    except BadBackend:
        return
    for chunk in chunks(body):
        assert chunk["object"] == "text_completion"
        assert all(
            set(c) == {"index", "text", "logprobs", "finish_reason"} for c in chunk["choices"]
        )
