"""POST /tokenize and /detokenize: what is asked of the engine, and what is made of its answers."""

import orjson
import pytest

from ark_trio.errors import BadBackend, InvalidRequest
from ark_trio.protocol.ark_request import encode_detokenize, encode_tokenize
from ark_trio.protocol.tokenize import (
    detokenize_body,
    parse_detokenize,
    parse_tokenize,
    tokenize_body,
)
from ark_trio.protocol.value import fill_value, from_value
from ark_wire import ark_pb2


def asked(**fields):
    return parse_tokenize(orjson.dumps({"model": "m", **fields}))


def inputs(request):
    return {key: from_value(value) for key, value in request.inputs.items()}


def answer(**outputs):
    response = ark_pb2.InferenceResponse()
    for key, value in outputs.items():
        fill_value(response.outputs[key], value)
    return response


def test_text_goes_to_the_method_tokenize():
    request = encode_tokenize(asked(prompt="grüße"), req_id="r1", model="big")
    assert (request.req_id, request.model_name, request.method) == ("r1", "big", "tokenize")
    assert inputs(request) == {"text": "grüße"}


def test_a_conversation_goes_as_in_a_chat():
    request = encode_tokenize(
        asked(messages=[{"role": "user", "content": "hi"}]), req_id="r1", model="big"
    )
    assert inputs(request) == {"messages.role": [b"user"], "messages.content": [b"hi"]}


def test_tokens_go_to_the_method_detokenize():
    body = parse_detokenize(orjson.dumps({"model": "m", "tokens": [1, 2, 3]}))
    request = encode_detokenize(body, req_id="r1", model="big")
    assert (request.req_id, request.model_name, request.method) == ("r1", "big", "detokenize")
    assert inputs(request) == {"tokens": [1, 2, 3]}
    none = parse_detokenize(orjson.dumps({"model": "m", "tokens": []}))
    assert inputs(encode_detokenize(none, req_id="r1", model="big")) == {"tokens": []}


@pytest.mark.parametrize(
    "body", [{}, {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}]
)
def test_one_thing_is_tokenized_at_a_time(body):
    with pytest.raises(InvalidRequest) as refusal:
        asked(**body)
    assert refusal.value.param == "prompt"


@pytest.mark.parametrize("tokens", [["1"], [True], None, "12"])
def test_tokens_that_are_none_are_refused_by_name(tokens):
    with pytest.raises(InvalidRequest) as refusal:
        parse_detokenize(orjson.dumps({"model": "m", "tokens": tokens}))
    assert (refusal.value.param or "").startswith("tokens")


def test_the_count_is_that_of_the_tokens():
    got = tokenize_body(answer(tokens=[5, 6], max_model_len=8192))
    assert got == {"count": 2, "max_model_len": 8192, "tokens": [5, 6], "token_strs": None}


def test_an_engine_that_names_no_context_length_leaves_it_open():
    assert tokenize_body(answer(tokens=[5]))["max_model_len"] is None


@pytest.mark.parametrize("outputs", [{}, {"tokens": "five"}, {"tokens": [1.5]}])
def test_an_answer_without_tokens_is_the_engines_fault(outputs):
    with pytest.raises(BadBackend):
        tokenize_body(answer(**outputs))


def test_the_text_of_the_tokens_comes_back():
    assert detokenize_body(answer(text="grüße")) == {"prompt": "grüße"}


@pytest.mark.parametrize("outputs", [{}, {"text": [1]}])
def test_an_answer_without_text_is_the_engines_fault(outputs):
    with pytest.raises(BadBackend):
        detokenize_body(answer(**outputs))
