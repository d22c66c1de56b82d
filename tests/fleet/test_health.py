"""One look proves little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.fleet.health import Health


def looks(health: Health, *good: bool) -> list[bool]:
    seen = []
    for each in good:
        health.saw(good=each)
        seen.append(health.well)
    return seen


def test_the_first_good_look_ever_is_enough():
    assert looks(Health(rise=3, fall=3), False, False, True) == [False, False, True]


def test_it_takes_some_bad_ones_and_then_some_good_ones():
    health = Health(rise=2, fall=3)
    assert looks(health, True, False, False, False) == [True, True, True, False]
    assert looks(health, True, False, True, True) == [False, False, False, True]


def test_a_doubtful_one_is_looked_at_again_soon():
    health = Health(rise=2, fall=2)
    looks(health, True)
    assert not health.doubtful
    looks(health, False)
    assert health.doubtful


def test_after_a_lost_connection_one_good_look_is_enough():
    health = Health(rise=3, fall=3)
    looks(health, True)
    health.lost()
    assert not health.well
    assert looks(health, True) == [True]


@pytest.mark.parametrize("good", [True, False])
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_looks_that_agree_settle_it(good: bool, before: list[bool], rise: int, fall: int):
    health = Health(rise=rise, fall=fall)
    looks(health, *before, *[good] * max(rise, fall))
    assert health.well is good
