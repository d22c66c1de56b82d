import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import BadBackend
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2, inference


def response(**outputs):
    made = ark_pb2.InferenceResponse(req_id="someone else's")
    for key, value in outputs.items():
        fill_value(made.outputs[key.replace("__", ".")], value)
    return ark_pb2.InferenceResponse.FromString(made.SerializeToString())


def choice(content="", index=0, **fields):
    message = {"role": "assistant", "content": content, **fields.pop("message", {})}
    return {"index": index, "message": message, **fields}


def flat(content=None, index=None, finish=None):
    outputs = {
        "choice__message__content": content,
        "choice__index": index,
        "choice__finish_reason": finish,
    }
    return response(**{key: value for key, value in outputs.items() if value is not None})


def feed(*responses):
    decoder = ResponseDecoder()
    return [decoder.feed(r) for r in responses]


def one(r):
    (step,) = feed(r)
    (delta,) = step.choices
    return delta


def test_a_nested_choice():
    assert feed(response(choice=choice("hi"))) == [Step(choices=(ChoiceDelta(content="hi"),))]


def test_a_flat_choice():
    assert one(flat(b"hi", 2)) == ChoiceDelta(index=2, content="hi")
    assert one(flat("hi")) == ChoiceDelta(content="hi")
    assert one(flat(b"", 0, b"stop")) == ChoiceDelta(finish_reason="stop")


def test_nested_wins_over_its_flat_copies():
    both = response(choice=choice("hi", 1), choice__index=1, choice__message__content=b"hi")
    assert one(both) == ChoiceDelta(index=1, content="hi")


def test_what_nested_leaves_out_is_read_flat():
    both = response(
        choice={"message": {"content": "x"}}, choice__index=3, choice__finish_reason=b"length"
    )
    assert one(both) == ChoiceDelta(index=3, content="x", finish_reason="length")


@pytest.mark.parametrize("reason", [None, "", b""])
def test_no_finish_reason_yet(reason):
    assert one(response(choice=choice("x", finish_reason=reason))).finish_reason is None
    assert one(flat(b"x", 0, reason)).finish_reason is None


@pytest.mark.parametrize(
    ("word", "reason"), [("stop", "stop"), ("max_tokens", "length"), (b"eos", "stop")]
)
def test_finish_reasons_are_translated(word, reason):
    assert one(response(choice=choice(finish_reason=word))).finish_reason == reason


def test_an_aborted_answer_is_no_regular_end():
    with pytest.raises(BadBackend):
        feed(response(choice=choice(finish_reason="abort")))


def test_reasoning_and_tool_calls():
    calls = [
        {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"index": 4, "id": "", "function": None},
    ]
    delta = one(response(choice=choice(message={"reasoning_content": "hm", "tool_calls": calls})))
    assert delta == ChoiceDelta(
        reasoning="hm",
        tool_calls=(
            ToolCallDelta(index=1, id="c1", name="f", arguments="{"),
            ToolCallDelta(index=1, arguments="}"),
            ToolCallDelta(index=4),
        ),
    )


def test_empty_extras_are_nothing():
    empty = {"reasoning_content": "", "tool_calls": []}
    assert one(response(choice=choice("x", message=empty))) == ChoiceDelta(content="x")
    nulls = {"reasoning_content": None, "tool_calls": None}
    delta = one(response(choice=choice("x", message=nulls, logprobs=None)))
    assert delta == ChoiceDelta(content="x")


def test_log_probabilities_in_openai_s_shape():
    other = {"token": "b", "logprob": -math.inf}
    entry = {
        "token": "a",
        "logprob": 0,
        "bytes": b"a",
        "top_logprobs": [other, dict(other, bytes=[98])],
    }
    worst = {"token": "c", "logprob": math.nan, "bytes": []}
    delta = one(response(choice=choice("a", logprobs={"content": [entry, worst]})))
    assert delta.logprobs == (
        {
            "token": "a",
            "logprob": 0.0,
            "bytes": [97],
            "top_logprobs": [
                {"token": "b", "logprob": -9999.0, "bytes": None},
                {"token": "b", "logprob": -9999.0, "bytes": [98]},
            ],
        },
        {"token": "c", "logprob": -9999.0, "bytes": [], "top_logprobs": []},
    )


def test_log_probabilities_may_be_none():
    assert one(response(choice=choice("a", logprobs={"content": None}))).logprobs == ()


@pytest.mark.parametrize("nested", [True, False])
@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 90), max_size=6))
def test_text_is_the_same_however_its_bytes_are_cut(nested, text, cuts):
    raw = text.encode()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    decoder = ResponseDecoder()
    steps = [
        decoder.feed(response(choice=choice(piece)) if nested else flat(piece, 0))
        for piece in pieces
    ]
    assert "".join(step.choices[0].content for step in steps) == text
    assert decoder.end() == Step()


def test_each_choice_has_its_own_half_character():
    a, o = "ä".encode(), "ö".encode()
    steps = feed(flat(a[:1], 0), flat(o[:1], 1), flat(a[1:], 0), flat(o[1:], 1))
    assert [step.choices[0].content for step in steps] == ["", "", "ä", "ö"]


def test_half_a_character_at_the_choice_s_end_is_replaced():
    decoder = ResponseDecoder()
    decoder.feed(flat(b"\xc3", 0))
    last = decoder.feed(flat(b"", 0, b"stop"))
    assert last.choices == (ChoiceDelta(content="\ufffd", finish_reason="stop"),)
    assert decoder.end() == Step()


def test_half_a_character_at_the_stream_s_end_is_replaced():
    decoder = ResponseDecoder()
    decoder.feed(flat(b"\xc3", 1))
    decoder.feed(flat(b"\xc3", 0))
    decoder.feed(flat(b"whole", 2))
    assert decoder.end().choices == (
        ChoiceDelta(index=0, content="\ufffd"),
        ChoiceDelta(index=1, content="\ufffd"),
    )
    assert decoder.end() == Step()


def test_usage_nested_or_flat():
    details = {"completion_tokens_details": {"reasoning_tokens": 1}}
    nested = response(
        usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, **details}
    )
    assert feed(nested) == [
        Step(usage=Usage(prompt_tokens=5, completion_tokens=2, reasoning_tokens=1))
    ]
    old = response(usage__prompt_tokens=5, usage__completion_tokens=2, usage__total_tokens=7)
    assert feed(old) == [Step(usage=Usage(prompt_tokens=5, completion_tokens=2))]


def test_usage_may_come_with_the_first_message_the_last_or_never():
    silent, told = choice("a"), {"prompt_tokens": 5, "completion_tokens": 1}
    steps = feed(
        response(choice=silent), response(choice=silent, usage=told), response(choice=silent)
    )
    usage = Usage(prompt_tokens=5, completion_tokens=1)
    assert [step.usage for step in steps] == [None, usage, None]


def test_what_later_messages_leave_out_of_the_totals_stays():
    first, second = feed(
        response(
            usage={"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        ),
        response(usage={"completion_tokens": 2, "completion_tokens_details": {}}),
    )
    assert first.usage == Usage(prompt_tokens=5, cached_tokens=4)
    assert second.usage == Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=4)
    told = {"completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}}
    _, second = feed(response(usage=told), response(usage={"prompt_tokens": 5}))
    assert second.usage == Usage(prompt_tokens=5, completion_tokens=2, reasoning_tokens=1)


@pytest.mark.parametrize(
    "cache",
    [
        {"cache": {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2}},
        {"cache__prompt_cache_hit_tokens": 3},
    ],
)
def test_cache_hits_are_cached_tokens_whenever_they_come(cache):
    usage = {"usage": {"prompt_tokens": 5}}
    expected = Usage(prompt_tokens=5, cached_tokens=3)
    assert feed(response(**usage, **cache)) == [Step(usage=expected)]
    assert [s.usage for s in feed(response(**cache), response(**usage))] == [None, expected]
    assert feed(response(**usage), response(**cache))[1].usage == expected


def test_empty_usage_tells_nothing():
    assert feed(response(usage={}, cache={}), response(usage=None, cache=None)) == [Step(), Step()]


def test_unknown_keys_are_ignored():
    assert feed(response(metrics={"a": 1}, choices=5)) == [Step()]
    assert one(response(choice=choice("x", vendor=[1]), other=2)) == ChoiceDelta(content="x")


def test_a_null_choice_is_no_choice():
    assert feed(response(choice=None)) == [Step()]
    assert one(response(choice={"message": None, "index": None})) == ChoiceDelta()


@pytest.mark.parametrize(
    "outputs",
    [
        {"choice": 7},
        {"choice": "text"},
        {"choice": []},
        {"choice": {"index": "0"}},
        {"choice": {"index": -1}},
        {"choice": {"index": 0.0}},
        {"choice": {"index": False}},
        {"choice": {"message": "hi"}},
        {"choice": {"message": {"content": 5}}},
        {"choice": {"message": {"content": []}}},
        {"choice": {"message": {"reasoning_content": 0}}},
        {"choice": {"message": {"tool_calls": "f()"}}},
        {"choice": {"message": {"tool_calls": ["f()"]}}},
        {"choice": {"message": {"tool_calls": [{"function": "f"}]}}},
        {"choice": {"message": {"tool_calls": [{"index": -1}]}}},
        {"choice": {"message": {"tool_calls": [{"index": True}]}}},
        {"choice": {"message": {"tool_calls": [{"function": {"arguments": {}}}]}}},
        {"choice": {"finish_reason": 0}},
        {"choice": {"logprobs": []}},
        {"choice": {"logprobs": {"content": 5}}},
        {"choice": {"logprobs": {"content": ["a"]}}},
        {"choice": {"logprobs": {"content": [{"token": 5}]}}},
        {"choice": {"logprobs": {"content": [{"token": "a"}]}}},
        {"choice": {"logprobs": {"content": [{"token": "a", "logprob": True}]}}},
        {"choice": {"logprobs": {"content": [{"token": "a", "logprob": 0, "bytes": "a"}]}}},
        {"choice": {"logprobs": {"content": [{"token": "a", "logprob": 0, "bytes": [None]}]}}},
        {"choice": {"logprobs": {"content": [{"token": "a", "logprob": 0, "top_logprobs": 1}]}}},
        {"choice__index": b"0"},
        {"choice__message__content": 5},
        {"choice__finish_reason": 1},
        {"usage": 5},
        {"usage": {"prompt_tokens": 1.5}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": -1}},
        {"usage": {"prompt_tokens": 1, "completion_tokens_details": 5}},
        {"usage": {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": "1"}}},
        {"usage__prompt_tokens": "1"},
        {"cache": "all"},
        {"cache__prompt_cache_hit_tokens": "1"},
    ],
)
def test_an_ill_typed_value_is_the_engine_s_fault(outputs):
    with pytest.raises(BadBackend) as caught:
        feed(response(**outputs))
    assert caught.value.status == 502
    assert "malformed" in caught.value.message


def test_a_message_of_betterproto_is_read():
    V = inference.Value  # noqa: N806 - a class
    message = V(struct=inference.Struct(fields={"content": V(string="hi")}))
    outputs = {"choice": V(struct=inference.Struct(fields={"message": message}))}
    raw = bytes(inference.InferenceResponse(outputs=outputs))
    assert one(ark_pb2.InferenceResponse.FromString(raw)) == ChoiceDelta(content="hi")
