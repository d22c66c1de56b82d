"""The short way against the plain one: the same bytes to the client, whatever comes and however it is cut."""

from typing import Any

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.config import Limits
from ark_trio.errors import ArkError, Unavailable
from ark_trio.protocol.answer_text import AnswerDecoder
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.chat_stream import ChatStream
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.sse import KEEP_ALIVE
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.relay.answer import stream_answer
from ark_trio.relay.record import Record
from ark_trio.relay.steps import Steps
from ark_trio.rpc.mailbox import Mailbox
from ark_wire import ark_pb2


def message(step: Step) -> ark_pb2.InferenceResponse:
    (found,) = encode_step(step, req_id="r", model="m")
    return found


def text(content: str) -> ark_pb2.InferenceResponse:
    return message(Step(choices=(ChoiceDelta(content=content),)))


STOP = message(Step(choices=(ChoiceDelta(finish_reason="stop"),)))
MALFORMED = ark_pb2.InferenceResponse(outputs={"choice": ark_pb2.Value(string_="?")})
FLAT_HALF = ark_pb2.InferenceResponse(
    outputs={"choice.message.content": ark_pb2.Value(bytes_="é".encode()[:1])}
)


@define
class FakeOutlet:
    """A client that falls behind after every so many pieces."""

    out: bytearray
    slow_every: int = 0
    pieces: int = 0
    behind: bool = False
    pushed_when_behind: bool = False

    def push(self, data: bytes) -> bool:
        self.pushed_when_behind |= self.behind
        self.out += data
        self.pieces += 1
        self.behind = bool(self.slow_every) and self.pieces % self.slow_every == 0
        return not self.behind

    async def drained(self) -> None:
        await trio.sleep(1)
        self.behind = False


@define
class Run:
    limits: Limits = field(factory=lambda: Limits(between_tokens_s=30, total_s=None))
    mailbox: Mailbox[ark_pb2.InferenceResponse] = field(factory=Mailbox)
    out: bytearray = field(factory=bytearray)
    record: Record = field(factory=lambda: Record(request_id="r", method="POST", path="/"))
    turns: int = 0
    """Pieces that the answering task sent itself."""

    async def answer(self, outlet: FakeOutlet | None, reading: Reading | None = None) -> None:
        steps = Steps(self.mailbox, AnswerDecoder(reading or Reading()), self.limits, self.record)
        answer = ChatStream(id="chatcmpl-1", created=1, model="m", include_usage=True)
        pieces = stream_answer(None, steps, answer, self.record, 10, outlet)
        async for piece in pieces:
            self.out += piece
            self.turns += 1

    async def feed(self, reads: list[list[Any]], end: ArkError | None) -> None:
        """What the connection does: all messages of a read, a flush, room when full."""
        for read in reads:
            for one in read:
                if not self.mailbox.feed(one, one.ByteSize()):
                    self.mailbox.flush()
                    with trio.fail_after(60):
                        while self.mailbox._full:
                            await trio.sleep(0.1)
            self.mailbox.flush()
            await trio.sleep(0.001)
        if end is None:
            self.mailbox.end()
        else:
            self.mailbox.fail(end)


async def run(reads: list[list[Any]], end: ArkError | None, outlet_every: int | None) -> Run:
    one = Run()
    outlet = None if outlet_every is None else FakeOutlet(one.out, outlet_every)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.feed, reads, end)
        await one.answer(outlet)
    assert outlet is None or not outlet.pushed_when_behind
    return one


words = st.text(max_size=12)
a_message = st.one_of(
    words.map(text),
    words.map(text),
    st.just(FLAT_HALF),
    st.just(message(Step(usage=Usage(prompt_tokens=3, completion_tokens=1)))),
    st.just(ark_pb2.InferenceResponse()),
    words.map(lambda w: message(Step(choices=(ChoiceDelta(reasoning=w),)))),
    words.map(lambda w: text("<think>" + w)),
    words.map(lambda w: text(w + "</think>")),
    st.just(STOP),
    st.just(MALFORMED),
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(a_message, max_size=6), max_size=8),
    st.sampled_from([None, Unavailable("gone")]),
    st.integers(0, 3),
)
def test_the_short_way_sends_what_the_plain_way_sends(reads, end, slow_every):
    def bytes_of(outlet_every: int | None) -> tuple[bytes, Any, Any, int]:
        clock = trio.testing.MockClock(autojump_threshold=0)
        one = trio.run(run, reads, end, outlet_every, clock=clock)
        sent = bytes(one.out).replace(KEEP_ALIVE, b"")
        # How many came after a fault is nobody's count.
        messages = one.record.messages if one.record.outcome is None else -1
        return sent, one.record.outcome, one.record.usage, messages

    assert bytes_of(slow_every) == bytes_of(None)


async def test_while_the_client_keeps_up_no_task_runs_for_a_token(autojump_clock):
    one = await run([[text("a")], *[[text("b")]] * 50, [STOP]], None, 0)
    assert one.out.count(b'"content":"b"') == 50
    # The keep-alive that opened the stream, the first message, the end.
    assert one.turns == 3
    assert one.record.messages == 52


async def test_a_slow_client_holds_up_its_own_engine(autojump_clock):
    """Once a piece is left over, messages wait in the mailbox, which is bounded."""
    one = Run()
    outlet = FakeOutlet(one.out, slow_every=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.answer, outlet)
        await trio.sleep(0.1)
        one.mailbox.feed(text("a"))
        one.mailbox.flush()
        await trio.sleep(0.1)
        taken = 0
        while one.mailbox.feed(text("b"), 1000) and taken < 1000:
            one.mailbox.flush()
            taken += 1
        assert taken <= 66
        assert outlet.pieces == 1
        nursery.cancel_scope.cancel()


async def test_silence_is_told_and_ends_at_the_limit(autojump_clock):
    one = Run()
    outlet = FakeOutlet(one.out)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.answer, outlet)
        await trio.sleep(0.1)
        for _ in range(4):  # the limit counts from the last of them
            one.mailbox.feed(text("a"))
            one.mailbox.flush()
            await trio.sleep(8)
        at = one.out.rindex(b'"content":"a"')
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(22)
    assert one.out.count(KEEP_ALIVE, at) == 2
    assert one.out.count(KEEP_ALIVE) == 3
    assert b"token_timeout" in one.out
    assert one.record.outcome == "deadline_exceeded"


async def test_nothing_is_pushed_once_the_answering_task_has_ended(autojump_clock):
    """The next answer on the connection must not be written into."""
    one = Run()
    outlet = FakeOutlet(one.out)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.answer, outlet)
        await trio.sleep(0.1)
        one.mailbox.feed(text("a"))
        one.mailbox.flush()
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    before = bytes(one.out)
    one.mailbox.feed(text("late"))
    one.mailbox.flush()
    assert bytes(one.out) == before


async def test_nothing_is_pushed_before_a_slow_client_has_caught_up(autojump_clock):
    one = await run([[text("a")]] * 8 + [[STOP]], None, 1)  # which asserts it
    assert one.out.count(b'"content":"a"') == 8


async def test_a_fault_of_the_engine_is_told_at_once(autojump_clock):
    one = Run()
    outlet = FakeOutlet(one.out)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.answer, outlet)
        for found in (text("a"), text("b"), MALFORMED):
            await trio.sleep(0.1)
            one.mailbox.feed(found)
            one.mailbox.flush()
        at = trio.current_time()
    assert trio.current_time() - at < 2
    assert b'"content":"b"' in one.out
    assert one.record.outcome == "bad_backend"
