"""Who is left out, for how long, and who never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import (
    ArkError,
    BadBackend,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    Overloaded,
    PrefillerFailed,
    ShuttingDown,
    Unavailable,
    Unreachable,
)
from ark_trio.fleet.ejection import SEEN, Ejection, EjectionRules, is_fault, not_ejected


def fail(ejection: Ejection, now: float) -> float:
    """Faults until it is left out; how long it is."""
    for _ in range(ejection.rules.faults):
        if ejection.failed(now):
            return ejection.until - now
    raise AssertionError("never")


def test_faults_in_a_row_leave_it_out():
    ejection = Ejection()
    assert [ejection.failed(0.0) for _ in range(5)] == [False] * 4 + [True]
    assert ejection.out(4.9)
    assert not ejection.out(5.0)


def test_an_answer_between_starts_the_row_anew():
    ejection = Ejection()
    for _ in range(3):
        assert not any(ejection.failed(0.0) for _ in range(4))
        ejection.answered(0.0)


def test_half_of_the_answers_are_enough_however_they_are_mixed():
    ejection = Ejection()
    out = False
    for _ in range(SEEN):
        ejection.answered(0.0)
        out = out or ejection.failed(0.0)
    assert out


def test_each_time_is_longer_up_to_a_limit():
    ejection, now, lengths = Ejection(), 0.0, []
    for _ in range(9):
        lengths.append(fail(ejection, now))
        now = ejection.until
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert ejection.count == 9


def test_who_comes_back_is_on_trial_until_its_first_good_answer():
    ejection = Ejection()
    now = fail(ejection, 0.0)
    assert ejection.failed(now)
    back = ejection.until
    ejection.answered(back)
    assert not ejection.failed(back)


def test_who_does_well_for_as_long_as_it_was_out_is_forgiven():
    ejection = Ejection()
    fail(ejection, 0.0)
    ejection.answered(10.1)
    assert fail(ejection, 11.0) == 5


def test_none_is_left_out_where_that_is_switched_off():
    ejection = Ejection(rules=EjectionRules(faults=0))
    assert not any(ejection.failed(0.0) for _ in range(100))


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0, 1, allow_nan=False))
def test_ejection_never_empties_the_fleet(out: list[bool], panic_share: float):
    everyone = range(len(out))
    asked = not_ejected(everyone, [n for n in everyone if out[n]], panic_share=panic_share)
    assert asked
    assert len(asked) >= panic_share * len(out)
    if any(out[n] for n in asked):
        assert len(asked) == len(out)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (BadBackend("x"), True),
        (PrefillerFailed("x"), True),
        (Unavailable("x"), True),
        (Unreachable("x"), True),
        (InternalError("x"), True),
        (DeadlineExceeded("x", code="first_token_timeout"), True),
        (DeadlineExceeded("x", code="token_timeout"), True),
        (DeadlineExceeded("x", code="total_timeout"), False),
        (ShuttingDown("x"), False),
        (InvalidRequest("x"), False),
        (NotFound("x"), False),
        (Conflict("x"), False),
        (Overloaded("x"), False),
        (NotImplementedByEngine("x"), False),
    ],
)
def test_only_an_engines_own_faults_count(error: ArkError, fault: bool):
    assert is_fault(error) is fault
