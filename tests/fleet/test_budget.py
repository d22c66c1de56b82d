"""A fleet that is failing is not asked twice as much."""

from hypothesis import given
from hypothesis import strategies as st

from ark_trio.fleet.budget import WINDOW_S, RetryBudget


def test_in_quiet_times_a_few_a_second_are_allowed():
    budget = RetryBudget(share=0.2, per_s=1)
    assert sum(budget.take(0.0) for _ in range(50)) == 10
    assert not budget.take(WINDOW_S - 0.1)
    assert budget.take(WINDOW_S)


def test_under_load_a_share_of_the_requests_is():
    budget = RetryBudget(share=0.2, per_s=0)
    for _ in range(1000):
        budget.asked(0.0)
    assert sum(budget.take(0.5) for _ in range(1000)) == 200


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=60),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([0, 1, 10]),
)
def test_no_window_has_more_than_its_share(steps, share: float, per_s: int):
    budget, now = RetryBudget(share=share, per_s=per_s), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for pause_s, asked, failed in steps:
        now += pause_s
        for _ in range(asked):
            budget.asked(now)
            requests.append(now)
        for _ in range(failed):
            if budget.take(now):
                retries.append(now)
                start = int(now) - WINDOW_S + 1
                in_window = sum(at >= start for at in requests)
                assert sum(at >= start for at in retries) <= share * in_window + per_s * WINDOW_S
