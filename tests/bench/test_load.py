"""The benchmark's load client counts right, and takes no answer for whole that is not."""

import os
import socket
import time
from typing import Any

import pytest

from bench.decoders.messages import MODEL
from bench.load.arrival import note_arrivals, receive
from bench.load.crowd import Crowd, Target
from bench.load.http import Reply
from bench.load.loads import Lost, expect_whole, gaps_in_calm, percentiles
from bench.load.tape import Call, Tape
from bench.load.witness import Witness, calm
from bench.rounds import run_load
from bench.stacks.lineup import Running, running_decoder

EVENT = b'data: {"choices":[{"delta":{"content":" %010d"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
STREAM = b"".join(EVENT % number for number in range(3)) + END


def test_tokens_are_counted_wherever_the_stream_is_cut():
    for cut in range(len(STREAM)):
        call = Call(Tape(), 0.0)
        call.hear(STREAM[:cut], 1.0)
        call.hear(STREAM[cut:], 2.0)
        assert (call.tokens, call.ended) == (3, True), cut


@pytest.mark.parametrize(
    "stream",
    [STREAM.replace(EVENT % 1, b""), STREAM.removesuffix(b"data: [DONE]\n\n"), STREAM[: -len(END)]],
    ids=["a token lost", "no marker", "no finish reason"],
)
def test_an_answer_that_lacks_something_is_lost(stream):
    call = Call(Tape(), 0.0)
    call.hear(stream, 1.0)
    with pytest.raises(Lost):
        expect_whole([call], 1, 3)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_put_together_wherever_they_are_cut(size):
    data = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n10\r\n\r\n0123456789abcd\r\n0\r\n\r\n"
    )
    reply = Reply()
    body = b"".join(reply.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert (reply.status, body, reply.complete) == (200, b"hello\r\n0123456789abcd", True)


def test_a_body_of_known_length_ends_with_it():
    reply = Reply()
    assert reply.feed(b"HTTP/1.1 503 no\r\ncontent-length: 4\r\n\r\nwh") == b"wh"
    assert not reply.complete
    assert reply.feed(b"at") == b"at"
    assert (reply.status, reply.complete) == (503, True)


def test_what_was_read_late_came_when_it_came():
    one, other = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with one, other:
        other.connect(one.getsockname())
        note_arrivals(other)
        time.sleep(0.1)  # the kernel begins to note soon after the first socket asks
        peer, _ = one.accept()
        with peer:
            began = time.monotonic()
            peer.send(b"x")
            time.sleep(0.2)
            data, came = receive(other)
    assert data == b"x"
    assert began - 0.01 < came < began + 0.1


def test_a_slow_moment_spoils_the_gaps_that_it_reaches_into():
    witness = Witness()
    witness._times.extend([1.0, 1.1, 1.2, 1.3])
    witness._took.extend([1e-5, 1e-5, 2e-4, 1e-5])
    slow = witness.slow_moments()
    assert slow == [1.2]
    stretches = [(1.0, 1.1), (1.19, 1.194), (1.1, 1.196), (1.15, 1.25), (1.204, 1.22), (1.21, 1.3)]
    assert [calm(*each, slow) for each in stretches] == [True, True, False, False, False, True]
    assert calm(0.0, 9.0, [])


def test_long_gaps_are_left_out_no_more_than_short_ones():
    """A stack that stalls by itself is not excused by what the machine does meanwhile."""
    crowd = Crowd(Target(port=0, pid=0))
    crowd.witness._times.extend([0.9, 1.0, 1.1, 1.2, 1.3])
    crowd.witness._took.extend([1e-5, 1e-5, 1e-5, 2e-4, 1e-5])
    crowd.tape.begins.extend([1.0, 1.19])
    crowd.tape.gaps.extend([0.3, 0.021])
    assert gaps_in_calm(crowd, 0.02) == [0.3]


def test_a_token_that_is_read_before_it_was_written_is_not_late():
    tape = Tape()
    tape.recording = True
    call = Call(tape, 0.0)
    call.hear(EVENT % 5_000_100, 5.0)
    call.hear(EVENT % 4_999_000, 5.0)
    assert list(tape.delays) == pytest.approx([0.0, 0.001])


def test_a_witness_looks_a_thousand_times_a_second_at_most():
    witness = Witness()
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        witness.look()
    assert 1 < len(witness._times) <= 51


def test_percentiles():
    assert percentiles([n / 1000 for n in range(101)]) == pytest.approx({"p50": 50, "p99": 99})


LOADS: dict[str, dict[str, Any]] = {
    "paced": {"streams": 5, "pace_ms": 10, "warm_s": 0.05, "window_s": 0.2},
    "backlog": {"streams": 3, "tokens": 300},
    "held": {"streams": 5, "pace_ms": 50, "window_s": 0.2},
    "first": {"requests": 8, "tokens": 2},
    "burst": {"streams": 5, "tokens": 3, "times": 2},
}
SHORT: dict[str, Any] = {"requests": 8, "clients": 2, "tokens": 4, "stream": False}


@pytest.mark.e2e
@pytest.mark.parametrize("regime", ["stepped", "sse"])
def test_every_load_reads_a_decoder_whole(regime):
    with running_decoder(regime) as decoder:
        for load, arguments in LOADS.items():
            figures = run(decoder, load, arguments, direct=regime == "stepped")
            assert "failed" not in figures, (load, figures)
            assert all(value is not None for value in figures.values())
        paced = run(decoder, "paced", LOADS["paced"], direct=regime == "stepped")
        assert 0 <= paced["delay_ms"]["p50"] < 1000
        assert paced["cpu_us_token"] > 0


@pytest.mark.e2e
def test_a_target_that_answers_nothing_good_has_no_figures():
    with running_decoder("sse") as decoder:
        assert "failed" not in run(decoder, "short", SHORT)
    gone = Running(name=MODEL, port=decoder.port, pid=os.getpid(), start_s=0)
    assert "refused" in run(gone, "first", LOADS["first"])["failed"]


def run(
    decoder: Running, load: str, arguments: dict[str, Any], *, direct: bool = False
) -> dict[str, Any]:
    target = {"port": decoder.port, "pid": decoder.pid, "direct": direct}
    return run_load({"load": load, "arguments": arguments, "target": target, "cpus": []})
