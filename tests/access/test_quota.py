"""What a key may still ask: by hand, and in random histories."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.access.key import Key, digest_of
from ark_trio.access.quota import Ledger, Quota, Verdict, quota_of

NAME = "ann"


def tokens(limit: int) -> Quota:
    return Quota(tokens_per_minute=limit)


def requests(limit: int) -> Quota:
    return Quota(requests_per_minute=limit)


def test_a_minute_s_requests_may_come_at_once_and_then_steadily():
    ledger = Ledger()
    for number in range(60):
        assert ledger.claim(0, number, NAME, requests(60), 0).refused is None
    refused = ledger.claim(0, "x", NAME, requests(60), 0)
    assert (refused.refused, refused.retry_after_s) == ("requests", 1)
    assert ledger.claim(0.99, "x", NAME, requests(60), 0).refused == "requests"
    assert ledger.claim(1.0, "x", NAME, requests(60), 0).refused is None
    assert ledger.claim(1.0, "y", NAME, requests(60), 0).refused == "requests"


def test_what_was_set_aside_is_put_right_by_what_was_used():
    ledger = Ledger()
    ledger.claim(0, 1, NAME, tokens(1000), 600)
    assert ledger.claim(0, 2, NAME, tokens(1000), 600).refused == "tokens"
    ledger.settle(0, 1, 100)
    verdict = ledger.claim(0, 2, NAME, tokens(1000), 600)
    assert verdict.refused is None
    assert verdict.tokens is not None
    assert (verdict.tokens.remaining, verdict.tokens.limit) == (300, 1000)


def test_an_engine_that_miscounts_locks_no_key_out_for_days():
    ledger = Ledger()
    ledger.claim(0, 1, NAME, tokens(100), 50)
    ledger.settle(0, 1, 2**62)
    assert ledger.claim(3600, 2, NAME, tokens(100), 1).refused == "tokens"
    assert ledger.claim(3602, 2, NAME, tokens(100), 1).refused is None


def test_a_debt_is_paid_before_the_next_request():
    ledger = Ledger()
    ledger.claim(0, 1, NAME, tokens(600), 10)
    ledger.settle(0, 1, 1200)  # a minute's worth beyond what there was
    refused = ledger.claim(0, 2, NAME, tokens(600), 10)
    assert refused.refused == "tokens"
    assert refused.retry_after_s == pytest.approx(61)
    assert refused.tokens is not None
    assert refused.tokens.remaining == 0
    assert refused.tokens.reset_s == pytest.approx(120)
    assert ledger.claim(60.9, 2, NAME, tokens(600), 10).refused == "tokens"
    assert ledger.claim(61.1, 2, NAME, tokens(600), 10).refused is None


def test_an_estimate_over_a_minute_s_takes_all_and_forbids_nothing():
    ledger = Ledger()
    assert ledger.claim(0, 1, NAME, tokens(100), 10_000).refused is None
    assert ledger.claim(0, 2, NAME, tokens(100), 1).refused == "tokens"
    ledger.settle(0, 1, 30)
    assert ledger.claim(0, 2, NAME, tokens(100), 70).refused is None


def test_nobody_knows_what_a_dead_worker_used_so_the_estimate_stands():
    ledger = Ledger()
    ledger.claim(0, 1, NAME, tokens(100), 80)
    ledger.settle(0, 1, None)
    assert ledger.claim(0, 2, NAME, tokens(100), 30).refused == "tokens"
    assert not ledger.open_tickets()


def test_requests_at_once_are_counted_until_settled_and_once():
    ledger, quota = Ledger(), Quota(concurrent_requests=2)
    assert ledger.claim(0, 1, NAME, quota, 0).refused is None
    assert ledger.claim(0, 2, NAME, quota, 0).refused is None
    refused = ledger.claim(0, 3, NAME, quota, 0)
    assert (refused.refused, refused.retry_after_s) == ("concurrent", 1)
    assert (refused.requests, refused.tokens) == (None, None)
    ledger.settle(0, 1, 0)
    ledger.settle(0, 1, 0)
    ledger.settle(0, "never claimed", 0)
    assert ledger.claim(0, 3, NAME, quota, 0).refused is None
    assert ledger.claim(0, 4, NAME, quota, 0).refused == "concurrent"


def test_what_is_refused_takes_nothing():
    ledger = Ledger()
    quota = Quota(requests_per_minute=10, tokens_per_minute=100, concurrent_requests=1)
    ledger.claim(0, 1, NAME, quota, 100)
    for _ in range(20):
        assert ledger.claim(0, 2, NAME, quota, 100).refused == "tokens"
    ledger.settle(0, 1, 0)
    verdict = ledger.claim(0, 2, NAME, quota, 0)
    assert verdict.requests is not None
    assert verdict.requests.remaining == 8


def test_names_have_accounts_of_their_own():
    ledger = Ledger()
    assert ledger.claim(0, 1, "ann", requests(1), 0).refused is None
    assert ledger.claim(0, 2, "bob", requests(1), 0).refused is None
    assert {name: running for name, (_, running) in ledger.look(0).items()} == {"ann": 1, "bob": 1}


def test_new_limits_count_at_once():
    ledger = Ledger()
    ledger.claim(0, 1, NAME, requests(60), 0)
    lowered = ledger.claim(0, 2, NAME, requests(2), 0)
    assert lowered.requests is not None
    assert (lowered.requests.limit, lowered.requests.remaining) == (2, 1)
    raised = ledger.claim(0, 3, NAME, requests(600), 0)
    assert raised.requests is not None
    assert (raised.requests.limit, raised.requests.remaining) == (600, 0)
    assert ledger.claim(10, 4, NAME, requests(600), 0).refused is None  # a hundred more by now
    assert ledger.claim(10, 5, NAME, Quota(), 0) == Verdict()


def test_a_key_without_limits_has_no_quota():
    assert quota_of(Key(name="a", sha256=digest_of("a"))) is None
    assert quota_of(Key(name="a", sha256=digest_of("a"), tokens_per_minute=5)) == tokens(5)


CALLS = st.lists(
    st.tuples(
        st.floats(0, 30),  # seconds that pass before
        st.integers(0, 300),  # tokens set aside
        st.floats(0, 1),  # share of them that is used in the end
        st.booleans(),  # settled at once, or at the end
    ),
    max_size=80,
)


@given(CALLS, st.integers(1, 200), st.integers(1, 1000), st.integers(1, 5))
def test_no_history_gets_more_than_a_minute_s_worth_and_what_refills(
    calls: list[Any], per_minute: int, tokens_per_minute: int, at_once: int
):
    ledger, now, granted, spent, open_now = Ledger(), 0.0, 0, 0, []
    quota = Quota(
        requests_per_minute=per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=at_once,
    )
    for number, (passes_s, aside, share, at_once_settled) in enumerate(calls):
        now += passes_s
        verdict = ledger.claim(now, number, NAME, quota, aside)
        if verdict.refused is None:
            granted += 1
            taken = min(aside, tokens_per_minute)
            used = int(taken * share)
            open_now.append((number, used))
            spent += used
            assert len(open_now) <= at_once
        if open_now and at_once_settled:
            ledger.settle(now, *open_now.pop())
        for rate in (verdict.requests, verdict.tokens):
            assert rate is not None
            assert 0 <= rate.remaining <= rate.limit
            assert rate.reset_s >= 0
        # Never more than a full bucket and what has refilled since: the estimate bounds a burst.
        assert granted <= per_minute * (1 + now / 60) + 1e-6
        assert spent <= tokens_per_minute * (1 + now / 60) + 1e-6
    for claim in open_now:
        ledger.settle(now, *claim)
    assert ledger.look(now)[NAME][1] == 0 if calls else not ledger.look(now)


@given(CALLS)
def test_who_waits_as_long_as_it_is_told_is_let_in(calls: list[Any]):
    ledger, now = Ledger(), 0.0
    quota = Quota(requests_per_minute=7, tokens_per_minute=90)
    for number, (passes_s, aside, _, _) in enumerate(calls):
        now += passes_s
        verdict = ledger.claim(now, number, NAME, quota, aside)
        if verdict.refused is not None:
            now += verdict.retry_after_s + 1e-6
            assert ledger.claim(now, number, NAME, quota, aside).refused is None
