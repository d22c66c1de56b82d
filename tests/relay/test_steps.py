"""All steps at once against one batch after the other: the same steps, the same end at the same instant."""

from typing import Any

import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.config import Limits
from ark_trio.errors import ArkError, Unavailable
from ark_trio.protocol.step import ChoiceDelta, Step
from ark_trio.relay.record import Record
from ark_trio.relay.steps import Steps
from ark_trio.rpc.mailbox import Mailbox


@define
class Echo:
    """A decoder whose messages are texts."""

    def feed(self, message: str) -> Step:
        return Step(choices=(ChoiceDelta(content=message),))

    def end(self) -> Step:
        return Step()


@define
class Run:
    """One answer, taken either way."""

    limits: Limits
    mailbox: Mailbox[str] = field(factory=Mailbox)
    taken: list[tuple[float, Step]] = field(factory=list)
    record: Record = field(
        factory=lambda: Record(
            request_id="r", method="POST", path="/", started=trio.current_time() - 2
        )
    )

    def take(self, step: Step) -> None:
        self.taken.append((trio.current_time(), step))

    async def answer(self, *, at_once: bool) -> Any:
        began = trio.current_time()
        steps = Steps(self.mailbox, Echo(), self.limits, self.record)
        outcome = None
        try:
            if at_once:
                await steps.take_all(self.take)
            else:
                while batch := await steps.take():
                    for step in batch:
                        self.take(step)
        except ArkError as error:
            outcome = (type(error), error.code)
        times = [(round(at - began, 6), step) for at, step in self.taken]
        return outcome, round(trio.current_time() - began, 6), times, self.record.messages

    async def feed(self, batches: list[tuple[float, int]], end: str) -> None:
        for pause_s, count in batches:
            await trio.sleep(pause_s)
            for number in range(count):
                self.mailbox.feed(str(number))
            self.mailbox.flush()
        if end == "ends":
            self.mailbox.end()
        elif end == "fails":
            self.mailbox.fail(Unavailable("x"))


async def told(limits: Limits, batches: Any, end: str, *, at_once: bool) -> Any:
    run = Run(limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.feed, batches, end)
        found = await run.answer(at_once=at_once)
        nursery.cancel_scope.cancel()
    return found


pauses = st.sampled_from([0.0, 1.0, 4.0, 6.0, 8.0])
limits = st.builds(
    Limits,
    first_token_s=st.sampled_from([5.0, 7.0]),
    between_tokens_s=st.sampled_from([3.0, 7.0]),
    total_s=st.sampled_from([None, 9.0, 13.0]),
)


@settings(max_examples=60)
@given(
    limits,
    st.lists(st.tuples(pauses, st.integers(0, 3)), max_size=5),
    st.sampled_from(["ends", "fails", "hangs"]),
)
def test_all_at_once_is_one_after_the_other(limits: Limits, batches: Any, end: str):
    async def both() -> list[Any]:
        return [await told(limits, batches, end, at_once=at_once) for at_once in (True, False)]

    one, other = trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0))
    assert one == other


async def test_what_comes_in_the_turn_in_which_the_limit_ends_is_in_time(
    autojump_clock: trio.testing.MockClock,
):
    run = Run(Limits(between_tokens_s=5.0))

    async def stumble() -> None:
        for _ in range(3):
            await trio.sleep(4.0)
            run.mailbox.feed("x")
            run.mailbox.flush()
            autojump_clock.jump(2.0)  # as other work in the same turn of the loop
        run.mailbox.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stumble)
        outcome, _, taken, _ = await run.answer(at_once=True)
    assert (outcome, len(taken)) == (None, 3)
