"""The loads. Each returns its figures, and raises where an answer was not whole: who loses tokens has no figures."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.load.crowd import Crowd, Target
from bench.load.grpc import GrpcCalls, stream_request
from bench.load.meter import cpu_s, memory_kb
from bench.load.tape import Call
from bench.load.witness import calm

Figures = dict[str, Any]
PATIENCE_S = 60.0
OPENING_S = 0.003
"""What opening a stream may take, one after the other."""


class Lost(Exception):
    """Tokens or answers are missing."""


def paced(target: Target, *, streams: int, pace_ms: int, warm_s: float, window_s: float) -> Figures:
    """Hold streams open; measure in a window after all have begun."""
    # The first streams go on while the last are still opened.
    opening_s = 0.4 + streams * OPENING_S
    tokens = int((opening_s + warm_s + window_s) * 1000 / pace_ms) + 1
    crowd = Crowd(target)
    request = crowd.request(tokens=tokens, pace_ms=pace_ms)
    for _ in range(streams):
        crowd.connect().ask(request)
    crowd.read_until(lambda: all(call.first for call in crowd.calls), PATIENCE_S)
    crowd.read_for(warm_s)
    pids, tape = target.pids(), crowd.tape
    tape.recording = True
    before, own = cpu_s(pids), time.process_time()
    crowd.read_for(window_s)
    spent, own = cpu_s(pids) - before, time.process_time() - own
    tape.recording = False
    expect_open(crowd.calls)
    crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
    expect_whole(crowd.calls, streams, tokens)
    crowd.close()
    calm_gaps = gaps_in_calm(crowd, pace_ms / 1000)
    return {
        "cpu_us_token": spent / tape.recorded * 1e6,
        "client_us_token": own / tape.recorded * 1e6,
        "tokens_s": tape.recorded / window_s,
        "delay_ms": percentiles(tape.delays),
        "gap_ms": percentiles(tape.gaps),
        "calm_gap_ms": percentiles(calm_gaps),
        "calm_share": len(calm_gaps) / max(1, len(tape.gaps)),
        "first_ms": percentiles(first_times(crowd.calls)),
        "tokens_a_read": tape.recorded / max(1, tape.reads),
        **frames_a_read(crowd),
    }


def backlog(target: Target, *, streams: int, tokens: int) -> Figures:
    """Take long answers as fast as they come."""
    crowd = Crowd(target)
    request = crowd.request(tokens=tokens, pace_ms=0)
    pids = target.pids()
    before, began = cpu_s(pids), time.monotonic()
    for _ in range(streams):
        crowd.connect().ask(request)
    crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
    spent, took = cpu_s(pids) - before, time.monotonic() - began
    expect_whole(crowd.calls, streams, tokens)
    crowd.close()
    total = streams * tokens
    return {
        "cpu_us_token": spent / total * 1e6,
        "tokens_s_core": total / spent,
        "tokens_s": total / took,
        **frames_a_read(crowd),
    }


def held(target: Target, *, streams: int, pace_ms: int, window_s: float) -> Figures:
    """Hold many slow streams open; measure what each adds to the memory."""
    crowd = Crowd(target)
    for _ in range(3):
        # Whatever the first requests load for ever is no stream's.
        _ask_one_after_the_other(crowd, 20, tokens=4, stream=True)
    pids = target.pids()
    idle_kb = memory_kb(pids)
    request = crowd.request(tokens=10_000, pace_ms=pace_ms)
    opened: list[Call] = []
    began = time.monotonic()
    for _ in range(streams):
        connection = crowd.connect()
        connection.ask(request)
        opened.append(connection.calls[-1])
        # 64 wait for their first token at a time: this is about streams, not about opening them.
        crowd.read_until(lambda: sum(not c.first for c in opened[-64:]) < 64, PATIENCE_S)
        expect_open(opened[-65:])
    crowd.read_until(lambda: all(call.first or call.failure for call in opened), PATIENCE_S)
    took = time.monotonic() - began
    before, heard = cpu_s(pids), crowd.tape.tokens
    crowd.read_for(window_s)
    spent, heard = cpu_s(pids) - before, crowd.tape.tokens - heard
    held_kb = memory_kb(pids)
    expect_open(opened)
    crowd.close()
    return {
        "kb_stream": (held_kb - idle_kb) / streams,
        "idle_mb": idle_kb / 1024,
        "open_ms": took / streams * 1000,
        "cpu_us_token": spent / max(1, heard) * 1e6,
    }


def short(target: Target, *, requests: int, clients: int, tokens: int, stream: bool) -> Figures:
    """Ask for short answers, several clients at once, each on its one connection."""
    crowd = Crowd(target)
    request = crowd.request(tokens=tokens, pace_ms=0, stream=stream)
    connections = [crowd.connect(stream=stream) for _ in range(clients)]
    pids = target.pids()
    before, began = cpu_s(pids), time.monotonic()
    for _ in range(requests // clients):
        for connection in connections:
            connection.ask(request)
        crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
    spent, took = cpu_s(pids) - before, time.monotonic() - began
    count = requests // clients * clients
    expect_whole(crowd.calls, count, tokens)
    crowd.close()
    return {"cpu_ms_request": spent / count * 1000, "requests_s": count / took}


def first(target: Target, *, requests: int, tokens: int) -> Figures:
    """Ask for one answer after the other, each on a new connection; connecting counts."""
    crowd = Crowd(target)
    _ask_one_after_the_other(crowd, requests, tokens=tokens, stream=True)
    crowd.close()
    return {"first_ms": percentiles(first_times(crowd.calls[5:]))}


def burst(target: Target, *, streams: int, tokens: int, times: int) -> Figures:
    """Open many streams at once, some times over."""
    crowd, opened = Crowd(target), 0
    request = crowd.request(tokens=tokens, pace_ms=0)
    pids = target.pids()
    before = cpu_s(pids)
    for _ in range(times):
        fresh = [crowd.connect() for _ in range(streams)]
        for connection in fresh:
            connection.ask(request)
        crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
        for connection in fresh:
            crowd.leave(connection)
        opened += streams
    spent = cpu_s(pids) - before
    expect_whole(crowd.calls, opened, tokens)
    crowd.close()
    return {
        "first_ms": percentiles(first_times(crowd.calls)),
        "cpu_ms_request": spent / opened * 1000,
    }


def steps(target: Target, *, streams: int, tokens: int, text: str) -> Figures:
    """Read a decoder directly, streams that keep one pace; tell how it writes."""
    crowd = Crowd(target)
    request, pids = stream_request(tokens=tokens, text=text), target.pids()
    before = cpu_s(pids)
    for _ in range(streams):
        crowd.connect().ask(request)
    crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
    spent = cpu_s(pids) - before
    expect_whole(crowd.calls, streams, tokens)
    crowd.close()
    return {"cpu_us_token": spent / streams / tokens * 1e6, **frames_a_read(crowd)}


LOADS: dict[str, Callable[..., Figures]] = {
    "paced": paced, "backlog": backlog, "held": held, "short": short, "first": first, "burst": burst, "steps": steps,
}  # fmt: skip


def expect_whole(calls: Sequence[Call], count: int, tokens: int) -> None:
    """Check that every answer came whole.

    Raises:
        Lost: one did not.
    """
    if len(calls) != count:
        raise Lost(f"{len(calls)} calls, {count} were wanted")
    for call in calls:
        if call.failure or not call.ended or call.tokens != tokens:
            raise Lost(f"{call.tokens} of {tokens} tokens, {call.failure or 'ended'}")


def expect_open(calls: Sequence[Call]) -> None:
    """Check that no call has ended.

    Raises:
        Lost: one has.
    """
    ended = [call.failure for call in calls if call.failure or call.ended]
    if ended:
        raise Lost(f"{len(ended)} of {len(calls)} streams are not open: {ended[0]}")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99 in ms."""
    if len(seconds) < 2:
        return {"p50": seconds[0] * 1000, "p99": seconds[0] * 1000} if seconds else {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000}


def first_times(calls: Sequence[Call]) -> list[float]:
    """Return the seconds to each call's first token."""
    return [call.first - call.began for call in calls if call.first is not None]


def gaps_in_calm(crowd: Crowd, pace_s: float) -> list[float]:
    """Return the gaps between tokens in which the machine was not slow until the next was due.

    However long the gap is: with its own length, the longest would be left out the most.
    """
    slow, tape = crowd.witness.slow_moments(), crowd.tape
    gaps = zip(tape.gaps, tape.begins, strict=True)
    return [gap for gap, begin in gaps if calm(begin, begin + pace_s, slow)]


def frames_a_read(crowd: Crowd) -> Figures:
    """Return how a decoder writes, where it is read directly."""
    one = crowd.connections[0]
    return {"frames_a_read": one.data_frames / one.data_reads} if isinstance(one, GrpcCalls) else {}


def _ask_one_after_the_other(crowd: Crowd, requests: int, *, tokens: int, stream: bool) -> None:
    request = crowd.request(tokens=tokens, pace_ms=0)
    for _ in range(requests):
        connection = crowd.connect(stream=stream)
        connection.ask(request)
        call = connection.calls[-1]
        crowd.read_until(lambda: not crowd.busy, PATIENCE_S)
        expect_whole([call], 1, tokens)
        crowd.leave(connection)
