"""What holds of a choice whatever the decoders do: properties."""

import random
from collections import Counter

from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.fleet.choice import bound, by_key, by_load, in_turn
from ark_trio.fleet.load import Load, Work


@define(eq=False)
class One:
    seed: bytes
    load: Load


def some(in_flight: list[int]) -> list[One]:
    return [One(b"decoder %d" % n, Load(in_flight=busy)) for n, busy in enumerate(in_flight)]


KEYS = [b"key %d" % number for number in range(2000)]
loads = st.lists(st.integers(0, 50), min_size=1, max_size=12)


@given(loads, st.binary(max_size=40))
def test_the_bound_is_never_exceeded(in_flight: list[int], key: bytes):
    chosen = by_key(some(in_flight), key, 0.0)
    assert chosen.load.in_flight + 1 <= bound(sum(in_flight), len(in_flight))


@given(st.lists(st.sampled_from(KEYS[:5]), min_size=1, max_size=200), st.integers(1, 8))
def test_nor_as_requests_of_a_few_keys_pile_up(keys: list[bytes], decoders: int):
    fleet = some([0] * decoders)
    for total, key in enumerate(keys):
        by_key(fleet, key, 0.0).load.in_flight += 1
        assert max(one.load.in_flight for one in fleet) <= bound(total, decoders)


@given(st.integers(2, 10), st.integers(0, 9))
def test_a_removed_decoder_moves_only_its_own_keys(count: int, gone: int):
    fleet = some([0] * count)
    left = [one for number, one in enumerate(fleet) if number != gone % count]
    before = {key: by_key(fleet, key, 0.0) for key in KEYS[:300]}
    for key, one in before.items():
        if one in left:
            assert by_key(left, key, 0.0) is one


def test_a_decoder_that_is_far_slower_than_the_others_loses_its_keys_for_a_while():
    fleet = some([0] * 4)
    slow = fleet[0]
    keys = [key for key in KEYS[:200] if by_key(fleet, key, 0.0) is slow]
    slow.load.first_token(number := slow.load.begin(Work(), 0.0), 10.0)
    slow.load.end(number, Work())
    assert not any(by_key(fleet, key, 10.0) is slow for key in keys)
    assert all(by_key(fleet, key, 60.0) is slow for key in keys)


def test_keys_spread_evenly():
    fleet = some([0] * 5)
    seen = Counter(by_key(fleet, key, 0.0).seed for key in KEYS)
    assert max(seen.values()) < 1.25 * len(KEYS) / 5


@given(loads.filter(lambda each: len(each) > 1), st.randoms())
def test_the_busiest_is_never_chosen_by_load_unless_it_is_no_busier(
    in_flight: list[int], dice: random.Random
):
    fleet = some(in_flight)
    worst = max(in_flight)
    chosen = by_load(fleet, 0.0, dice)
    assert chosen.load.in_flight < worst or in_flight.count(worst) > 1


@given(st.integers(1, 9), st.integers(1, 40))
def test_turns_come_round(count: int, rounds: int):
    fleet = some([0] * count)
    seen = []
    for turn in range(1, rounds + 1):
        chosen = in_turn(fleet)
        chosen.load.chosen = turn
        seen.append(chosen)
    assert max(Counter(map(id, seen)).values()) <= -(-rounds // count)


@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.booleans()), min_size=1, max_size=9
    ),
    st.randoms(),
)
def test_nothing_is_left_of_requests_that_are_over(work, dice):
    load = Load()
    running = [
        (load.begin(each := Work(prompt=p, answer=a), 0.0), each, told) for p, a, told in work
    ]
    dice.shuffle(running)
    for number, _, told in running:
        if told:
            load.first_token(number, 1.0)
            load.first_token(number, 2.0)
    for number, each, _ in running:
        load.end(number, each)
    assert (load.in_flight, load.tokens) == (0, 0)


def test_a_decoder_that_answers_slowly_costs_more_and_is_forgiven_in_time():
    slow, quick = Load(), Load()
    for load, seconds in ((slow, 2.0), (quick, 0.1)):
        load.first_token(number := load.begin(Work(), 0.0), seconds)
        load.end(number, Work())
    assert slow.cost(2.0) > 5 * quick.cost(2.0)
    assert slow.cost(60.0) == quick.cost(60.0)


def test_one_that_does_not_answer_costs_ever_more():
    hung = Load()
    hung.begin(Work(), 0.0)
    assert Load().cost(0.0) < hung.cost(1.0) < hung.cost(10.0)


def test_tokens_to_come_weigh():
    light, heavy = Load(), Load()
    light.begin(Work(prompt=10, answer=10), 0.0)
    heavy.begin(Work(prompt=10, answer=4000), 0.0)
    assert heavy.cost(0.0) > 2 * light.cost(0.0)


def test_a_long_prompt_does_not_make_a_decoder_slow():
    load = Load()
    load.first_token(load.begin(Work(prompt=20_000), 0.0), 1.0)
    assert load.pace_s(1.0) < 0.1
