"""The judge finds what is wrong with an answer, and inputs are made from their seed alone."""

import hpack
import pytest

from tests.fuzz.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame
from tests.fuzz.judge import BadAnswerError, judge
from tests.fuzz.play import GRAMMARS, load_play, make_play

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 \r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
BLOCK = hpack.Encoder().encode([(":status", "200")])
BEGIN = frame(SETTINGS, 0, 0, b"")


@pytest.mark.parametrize(
    ("received", "statuses"),
    [
        (b"", []),
        (OK, [200]),
        (OK[:20], []),
        (OK[:-1], [200]),
        (OK + OK, [200, 200]),
        (STREAM + DONE, [200]),
        (STREAM + DONE[:9], [200]),
    ],
)
def test_an_answer_may_end_anywhere_when_its_connection_did(received: bytes, statuses: list[int]):
    assert judge(GET, received) == statuses


@pytest.mark.parametrize(
    "received",
    [
        b"garbage",
        OK + b"}",
        OK.replace(b"{}", b"{]"),
        OK.replace(b": 2", b": x"),
        OK.replace(b"200", b"500"),
        OK.replace(b"200", b"404"),
        OK.replace(b"{}", b'{"a":"Traceback"}').replace(b": 2", b": 17"),
        STREAM + b"0\r\n\r\n",
        STREAM + b"zz\r\n",
    ],
)
def test_a_malformed_http1_answer_is_found(received: bytes):
    with pytest.raises(BadAnswerError):
        judge(GET, received)


def test_a_good_http2_answer_passes():
    answer = frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, END_STREAM, 1, b"x")
    assert judge(PREFACE, BEGIN + answer) == [200]
    assert judge(PREFACE, BEGIN + answer[:9]) == []


@pytest.mark.parametrize(
    "frames",
    [
        frame(HEADERS, END_HEADERS, 1, BLOCK),
        BEGIN + frame(DATA, 0, 1, b"x"),
        BEGIN + frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK) + frame(DATA, 0, 1, b"x"),
        BEGIN + frame(HEADERS, 0, 1, BLOCK),
        BEGIN + frame(SETTINGS, 0, 1, b""),
        BEGIN + frame(SETTINGS, 0, 0, b"abc"),
    ],
)
def test_a_malformed_http2_answer_is_found(frames: bytes):
    with pytest.raises(BadAnswerError):
        judge(PREFACE, frames)


def test_a_seed_makes_the_same_input_again_and_json_keeps_it(tmp_path):
    for number in range(50):
        play = make_play(f"test:{number}")
        assert make_play(f"test:{number}") == play
        path = tmp_path / "play.json"
        path.write_bytes(play.to_json())
        assert load_play(path) == play


def test_inputs_are_of_every_grammar_and_differ():
    plays = [make_play(f"test:{number}") for number in range(200)]
    assert {play.grammar for play in plays} == set(GRAMMARS)
    assert len({play.sent for play in plays}) > 190
