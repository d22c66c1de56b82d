"""Who runs, who waits, who is next: on virtual time, and in random histories that hypothesis draws."""

from collections import Counter
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.access.admission import BATCH_SHARE, Admission
from ark_trio.errors import Overloaded


@define
class Crowd:
    """Requests that come, run for a time and are noted in the order in which they were let in."""

    admission: Admission
    nursery: trio.Nursery
    served: list[str] = field(factory=list)
    refused: list[str] = field(factory=list)
    most: int = 0

    def come(
        self, name: str, *, key: str = "", batch: bool = False, takes_s: float = 1
    ) -> trio.CancelScope:
        """Have a request come; cancelling what is returned is its client's leaving."""
        scope = trio.CancelScope()
        self.nursery.start_soon(self._be, scope, name, key or name[0], batch, takes_s)
        return scope

    async def _be(
        self, scope: trio.CancelScope, name: str, key: str, batch: bool, takes_s: float
    ) -> None:
        with scope:
            try:
                async with self.admission.place(key, batch=batch):
                    self.served.append(name)
                    self.most = max(self.most, self.admission.running)
                    await trio.sleep(takes_s)
            except Overloaded:
                self.refused.append(name)


@pytest.fixture
async def crowd(nursery: trio.Nursery) -> Any:
    return lambda **limits: Crowd(
        Admission(**{"max_running": 1, "max_waiting": 100, **limits}), nursery
    )


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_thousand_requests_of_one_key_hardly_delay_another(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=2000)
    for number in range(1000):
        here.come(f"a{number}")
    await settle()
    here.come("b0")
    here.come("b1")
    await trio.sleep(4.5)
    assert [name[0] for name in here.served] == ["a", "a", "b", "a", "b"]


async def test_the_key_with_the_fewest_places_is_next(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_running=3)
    for name in ("a0", "a1", "b0"):
        here.come(name, takes_s=10 if name == "b0" else 5)
        await settle()
    for name in ("b1", "a2", "c0", "b2"):
        here.come(name, takes_s=100)
        await settle()
    await trio.sleep(6)  # two places of a's are free
    assert here.served[3:] == ["a2", "c0"] or here.served[3:] == ["c0", "a2"]


async def test_a_key_s_own_requests_are_served_in_order(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd()
    for number in range(6):
        here.come(f"a{number}")
        await settle()
    await trio.sleep(10)
    assert here.served == [f"a{number}" for number in range(6)]


async def test_interactive_goes_before_batch_which_gets_every_eighth_place(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=1000)
    here.come("first")
    await settle()
    for number in range(3):
        here.come(f"b{number}", batch=True)
    for number in range(40):
        here.come(f"i{number}")
    await trio.sleep(3 * BATCH_SHARE + 0.5)
    order = [name[0] for name in here.served[1:]]
    assert order == (["i"] * (BATCH_SHARE - 1) + ["b"]) * 3
    assert len(order) == 3 * BATCH_SHARE


async def test_batch_takes_every_place_that_nobody_else_wants(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_running=2)
    for number in range(6):
        here.come(f"b{number}", batch=True)
    await trio.sleep(3.5)
    assert len(here.served) == 6


async def test_beyond_the_line_is_refused_at_once(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=2)
    began = trio.current_time()
    for number in range(5):
        here.come(f"a{number}")
        await settle()
    assert here.refused == ["a3", "a4"]
    assert trio.current_time() == began


async def test_without_a_line_what_finds_no_place_is_refused(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=0)
    for name in ("a0", "b0"):
        here.come(name)
        await settle()
    here.come("b1", batch=True)
    await settle()
    assert here.refused == ["b0", "b1"]


async def test_a_full_line_makes_room_for_a_key_that_waits_with_less(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=4)
    for number in range(5):
        here.come(f"a{number}")
        await settle()
    for name in ("b0", "b1", "b2"):
        here.come(name)
        await settle()
    # Two each: the third of b's has no better claim than a's second.
    assert here.refused == ["a4", "a3", "b2"]
    await trio.sleep(10)
    assert sorted(here.served) == ["a0", "a1", "a2", "b0", "b1"]


async def test_in_a_full_line_each_class_has_its_share(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=BATCH_SHARE)
    here.come("x", takes_s=1000)
    await settle()
    for number in range(BATCH_SHARE):
        here.come(f"b{number}", batch=True)
        await settle()
    for number in range(BATCH_SHARE):
        here.come(f"i{number}")
        await settle()
    # All of batch but its eighth gave way; then interactive is at its own share.
    assert here.refused == [f"b{number}" for number in range(7, 0, -1)] + ["i7"]
    assert here.admission.waiting == BATCH_SHARE


async def test_batch_gets_its_share_of_a_line_full_of_interactive(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=BATCH_SHARE)
    here.come("x", takes_s=1000)
    await settle()
    for number in range(BATCH_SHARE):
        here.come(f"i{number}")
        await settle()
    for number in range(2):
        here.come(f"b{number}", batch=True)
        await settle()
    assert here.refused == ["i7", "b1"]


async def test_who_waits_too_long_is_refused(crowd: Any, autojump_clock: trio.testing.MockClock):
    here = crowd(max_wait_s=5)
    here.come("a0", takes_s=100)
    await settle()
    here.come("b0")
    await trio.sleep(4.9)
    assert not here.refused
    await trio.sleep(0.2)
    assert here.refused == ["b0"]
    assert here.admission.waiting == 0


async def test_who_leaves_the_line_frees_a_place_in_it_at_once(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=1)
    here.come("a0", takes_s=10)
    await settle()
    waiter = here.come("b0")
    await settle()
    waiter.cancel()
    await settle()
    assert here.admission.waiting == 0
    here.come("c0")
    await trio.sleep(10.5)
    assert here.served == ["a0", "c0"]
    assert not here.refused


async def test_who_leaves_as_its_turn_comes_leaves_no_hole(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    """The place is given and the client is gone in the same instant: the next one has it."""
    here = crowd()
    first = here.come("a0", takes_s=1000)
    await settle()
    gone = here.come("b0", takes_s=1000)
    await settle()
    here.come("c0", takes_s=1000)
    await settle()
    first.cancel()
    gone.cancel()
    await settle()
    assert here.admission.running == 1
    assert here.served[-1] == "c0"


async def test_new_limits_let_in_who_waits_and_send_nobody_away(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=10)
    for number in range(8):
        here.come(f"a{number}", takes_s=10)
        await settle()
    here.admission.resize(max_running=4, max_waiting=1)
    await settle()
    assert (here.admission.running, here.admission.waiting) == (4, 4)
    here.admission.resize(max_running=1, max_waiting=1)
    await trio.sleep(10.5)
    assert here.admission.running == 1
    assert not here.refused
    await trio.sleep(100)
    assert len(here.served) == 8


async def test_a_refusal_says_how_long_the_line_takes(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=20)
    for number in range(40):
        here.come(f"a{number}", takes_s=1)
    await trio.sleep(10.5)  # ten have ended, one a second; ten wait
    with pytest.raises(Overloaded) as caught:
        raise here.admission._refusal()
    assert here.admission.waiting == 10
    assert caught.value.retry_after_s in (10, 11)


async def test_who_runs_and_waits_is_told_by_key(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd()
    for name in ("a0", "a1", "b0"):
        here.come(name, batch=name == "b0")
        await settle()
    assert here.admission.by_key() == {"a": (1, 1), "b": (0, 1)}
    await trio.sleep(10)
    assert here.admission.by_key() == {}


Event = st.one_of(
    st.tuples(
        st.just("come"), st.sampled_from("abc"), st.booleans(), st.sampled_from([0, 1, 3, 10])
    ),
    st.tuples(st.just("leave"), st.integers(0, 40)),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 1.0, 5.0])),
    st.tuples(st.just("resize"), st.integers(1, 4), st.integers(0, 6)),
)


def _is_hopeless(admission: Admission, key: str) -> bool:
    try:
        admission.require_hope(key)
    except Overloaded:
        return True
    return False


async def test_who_has_no_hope_is_known_before_what_they_ask(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    here = crowd(max_waiting=2)
    for name in ("a0", "a1"):
        here.come(name)
        await settle()
        assert not _is_hopeless(here.admission, "a")
    here.come("a2")
    await settle()
    # Another key would take the place of a's youngest.
    assert _is_hopeless(here.admission, "a")
    assert not _is_hopeless(here.admission, "b")
    here.come("b0")
    await settle()
    assert _is_hopeless(here.admission, "b")
    await trio.sleep(1.5)
    assert not _is_hopeless(here.admission, "a")


async def test_who_may_be_batch_is_given_its_hope(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    """What a request asks may make it batch, which has a share of the line."""
    here = crowd(max_waiting=BATCH_SHARE)
    for number in range(BATCH_SHARE + 1):
        here.come(f"{chr(97 + number)}0")
        await settle()
    assert not _is_hopeless(here.admission, "z")
    here.come("z0", batch=True)
    await settle()
    assert len(here.refused) == 1  # the one that gave way
    assert _is_hopeless(here.admission, "y")


@settings(max_examples=150)
@given(st.lists(Event, max_size=60))
def test_whatever_happens_limits_hold_and_nobody_is_forgotten(events: list[tuple[Any, ...]]):
    trio.run(_live_through, events, clock=trio.testing.MockClock(autojump_threshold=0))


async def _live_through(events: list[tuple[Any, ...]]) -> None:
    admission = Admission(max_running=2, max_waiting=4, max_wait_s=30)
    limit, clients, came = 2, [], 0
    async with trio.open_nursery() as nursery:
        crowd = Crowd(admission, nursery)
        for event in events:
            match event:
                case ("come", key, batch, takes_s):
                    hopeless, refused = _is_hopeless(admission, key), len(crowd.refused)
                    clients.append(
                        crowd.come(f"{key}{came}", key=key, batch=batch, takes_s=takes_s)
                    )
                    came += 1
                    await settle()
                    assert not hopeless or crowd.refused[refused:] == [f"{key}{came - 1}"]
                case ("leave", number) if clients:
                    clients[number % len(clients)].cancel()
                case ("pass", seconds):
                    await trio.sleep(seconds)
                case ("resize", running, waiting):
                    limit = max(limit, running)
                    admission.resize(max_running=running, max_waiting=waiting, max_wait_s=30)
            await settle()
            # While a place is free nobody waits; what is told by key adds up.
            assert not (admission.running < admission._max_running and admission.waiting)
            told = admission.by_key().values()
            assert sum(running for running, _ in told) == admission.running
            assert sum(waiting for _, waiting in told) == admission.waiting
        admission.resize(max_running=4, max_waiting=6, max_wait_s=30)
    assert crowd.most <= max(limit, 4)
    assert (admission.running, admission.waiting, admission.by_key()) == (0, 0, {})
    assert len(set(crowd.served)) == len(crowd.served)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_no_key_waits_while_another_has_more_than_its_share(keys: list[str], places: int):
    """At every moment: a key that waits holds, within one, as many places as any other key."""
    trio.run(_share, keys, places, clock=trio.testing.MockClock(autojump_threshold=0))


async def _share(keys: list[str], places: int) -> None:
    admission = Admission(max_running=places, max_waiting=100)
    async with trio.open_nursery() as nursery:
        crowd = Crowd(admission, nursery)
        for number, key in enumerate(keys):
            crowd.come(f"{key}{number}", key=key)
        await settle()
        # The first to come had all the places; once each of them has ended, shares are even.
        await trio.sleep(1.5)
        waiting = Counter(keys)
        while admission.waiting:
            by_key = admission.by_key()
            for key, (running, waits) in by_key.items():
                assert not waits or running >= max(r for r, _ in by_key.values()) - 1, (key, by_key)
            await trio.sleep(1)
    assert sum(waiting.values()) == len(crowd.served)


async def test_the_wait_of_a_light_key_is_bounded_by_its_share(
    crowd: Any, autojump_clock: trio.testing.MockClock
):
    """With n keys that never stop asking, each gets a place within n places that become free."""
    here = crowd(max_waiting=1000)
    for key in "abcde":
        for number in range(50):
            here.come(f"{key}{number}")
    await trio.sleep(100.5)
    for start in range(5, 95, 5):
        assert {name[0] for name in here.served[start : start + 5]} == set("abcde")
