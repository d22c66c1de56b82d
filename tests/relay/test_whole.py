"""An answer in one piece against the same answer taken batch by batch: the same steps, the same end at the same instant."""

from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.config import Limits
from ark_trio.errors import ArkError, BadBackend, DeadlineExceeded, ShuttingDown, Unavailable
from ark_trio.protocol.step import ChoiceDelta, Step
from ark_trio.relay.record import Record
from ark_trio.relay.steps import Steps
from ark_trio.relay.whole import Whole
from ark_trio.rpc.mailbox import Mailbox, Sink


@define
class Echo:
    """A decoder whose messages are texts."""

    def feed(self, message: str) -> Step:
        return Step(choices=(ChoiceDelta(content=message),))

    def end(self) -> Step:
        return Step(choices=(ChoiceDelta(content="end"),))


@define
class Taken:
    """A fold that keeps what it is fed, and when."""

    steps: list[tuple[float, Step]] = field(factory=list)
    began: float = field(factory=trio.current_time)

    def feed(self, step: Step) -> None:
        self.steps.append((round(trio.current_time() - self.began, 6), step))

    def result(self) -> dict[str, Any]:
        return {"steps": self.steps}


def a_record() -> Record:
    return Record(request_id="r", method="POST", path="/", started=trio.current_time() - 2)


async def feed(sink: Sink[str], batches: list[tuple[float, int]], end: str) -> None:
    """Make a call, as far as its sink sees it."""
    for pause_s, count in batches:
        await trio.sleep(pause_s)
        for number in range(count):
            sink.feed(str(number))
        sink.flush()
    if end == "ends":
        sink.end()
    elif end == "fails":
        sink.fail(Unavailable("x"))
    else:
        await trio.sleep_forever()


async def in_one_piece(limits: Limits, batches: Any, end: str) -> Any:
    fold, record = Taken(), a_record()
    whole = Whole(Echo(), fold, limits, record)
    outcome = None
    try:
        await whole.run(lambda: feed(whole, batches, end))
    except ArkError as error:
        outcome = (type(error), error.code)
    return outcome, round(trio.current_time() - fold.began, 6), fold.steps, record.messages


async def batch_by_batch(limits: Limits, batches: Any, end: str) -> Any:
    fold, record, mailbox = Taken(), a_record(), Mailbox[str]()
    steps = Steps(mailbox, Echo(), limits, record)
    outcome = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, mailbox, batches, end)
        try:
            while batch := await steps.take():
                for step in batch:
                    fold.feed(step)
            fold.feed(steps.flush())
        except ArkError as error:
            outcome = (type(error), error.code)
        nursery.cancel_scope.cancel()
    return outcome, round(trio.current_time() - fold.began, 6), fold.steps, record.messages


pauses = st.sampled_from([0.0, 1.0, 4.0, 6.0, 8.0])
limits = st.builds(
    Limits,
    first_token_s=st.sampled_from([5.5, 7.5]),
    between_tokens_s=st.sampled_from([3.5, 7.5]),
    total_s=st.sampled_from([None, 9.5, 13.5]),
)


@settings(max_examples=60)
@given(
    limits,
    st.lists(st.tuples(pauses, st.integers(0, 3)), max_size=5),
    st.sampled_from(["ends", "fails", "hangs"]),
)
def test_one_piece_is_the_batches_put_together(limits: Limits, batches: Any, end: str):
    async def both() -> list[Any]:
        return [await how(limits, batches, end) for how in (in_one_piece, batch_by_batch)]

    one, other = trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0))
    assert one == other


async def test_what_comes_in_the_turn_in_which_the_limit_ends_is_in_time(
    autojump_clock: trio.testing.MockClock,
):
    fold = Taken()
    whole = Whole(Echo(), fold, Limits(between_tokens_s=5.0), a_record())

    async def stumble() -> None:
        for _ in range(3):
            await trio.sleep(4.0)
            autojump_clock.jump(2.0)  # as other work in the same turn of the loop
            whole.feed("x")
            whole.flush()
        whole.end()

    await whole.run(stumble)
    assert [step.choices[0].content for _, step in fold.steps] == ["x", "x", "x", "end"]


async def test_what_comes_as_the_limit_ends_changes_no_word_of_which_it_was(
    autojump_clock: trio.testing.MockClock,
):
    async def come(whole: Whole[str]) -> None:
        await trio.sleep(3.0)  # it began two seconds ago
        whole.feed("x")
        whole.flush()

    for _ in range(20):  # which of two tasks of one turn comes first is Trio's choice
        whole = Whole(Echo(), Taken(), Limits(first_token_s=5.0), a_record())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come, whole)
            with pytest.raises(DeadlineExceeded) as caught:
                await whole.run(trio.sleep_forever)
        assert caught.value.code == "first_token_timeout"


async def test_what_fails_from_outside_ends_the_call(autojump_clock: trio.testing.MockClock):
    del autojump_clock
    whole, given_up = Whole(Echo(), Taken(), Limits(), a_record()), False

    async def hang() -> None:
        nonlocal given_up
        try:
            await trio.sleep_forever()
        finally:
            given_up = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1.0)
        nursery.start_soon(fail_later, whole)
        with pytest.raises(ShuttingDown):
            await whole.run(hang)
    assert given_up


async def fail_later(whole: Whole[str]) -> None:
    await trio.sleep(1.0)
    whole.fail(ShuttingDown("x"))


async def test_an_answer_is_not_lost_to_what_fails_behind_it():
    fold = Taken()
    whole = Whole(Echo(), fold, Limits(), a_record())

    async def call() -> None:
        await feed(whole, [(0.0, 1)], "ends")
        whole.fail(ShuttingDown("x"))
        whole.feed("late")

    await whole.run(call)
    assert [step.choices[0].content for _, step in fold.steps] == ["0", "end"]


async def test_what_is_found_wrong_with_an_answer_outlasts_how_its_call_ends():
    class Strict(Echo):
        def feed(self, message: str) -> Step:
            raise BadBackend(message)

    whole = Whole(Strict(), Taken(), Limits(), a_record())
    with pytest.raises(BadBackend):
        await whole.run(lambda: feed(whole, [(0.0, 1)], "fails"))
    assert whole.error is None  # by which the decoder would be judged


async def test_a_fault_of_ours_ends_the_call_and_is_raised():
    class Faulty(Echo):
        def feed(self, message: str) -> Step:
            raise LookupError(message)

    fold = Taken()
    whole = Whole(Faulty(), fold, Limits(), a_record())
    with pytest.raises(LookupError):
        await whole.run(lambda: feed(whole, [(0.0, 2)], "hangs"))
    assert fold.steps == []
