"""Which decoder takes a request."""

from collections import Counter
from typing import Any

import pytest
import trio

from ark_trio.errors import BadBackend, Unavailable, UnknownModel
from ark_trio.fleet.decoder import Decoder
from ark_trio.fleet.fleet import ChoiceRules, Fleet
from ark_trio.fleet.load import Load
from ark_trio.fleet.probe import Served, parse_served
from ark_trio.settings.address import Address

pytestmark = pytest.mark.usefixtures("autojump_clock")


def decoder(port: int, *models: str, in_flight: int = 0) -> Decoder:
    channel: Any = object()
    made = Decoder(
        address=Address(host="127.0.0.1", port=port),
        channel=channel,
        default_models=(),
        load=Load(in_flight=in_flight),
    )
    made._see(Served(models=models) if models else None)
    return made


def fleet(*decoders: Decoder, **rules: Any) -> Fleet:
    return Fleet(decoders=[*decoders], rules=ChoiceRules(**rules))


async def test_the_less_busy_of_two_is_chosen():
    chosen = fleet(decoder(1, "m", in_flight=2), decoder(2, "m", in_flight=1)).choose("m")
    assert chosen.address.port == 2


async def test_ties_fall_at_random():
    three = fleet(*(decoder(port, "m") for port in (1, 2, 3)))
    seen = Counter(three.choose("m").address.port for _ in range(300))
    assert set(seen) == {1, 2, 3}
    assert min(seen.values()) > 50


async def test_only_decoders_of_the_model_are_asked():
    assert fleet(decoder(1, "a"), decoder(2, "b", in_flight=9)).choose("b").address.port == 2


async def test_a_key_leads_to_the_same_decoder_and_keys_to_all():
    three = fleet(*(decoder(port, "m") for port in (1, 2, 3)))
    keys = [str(number).encode() for number in range(60)]
    chosen = {key: three.choose("m", key) for key in keys}
    assert all(three.choose("m", key) is chosen[key] for key in keys)
    assert len(set(chosen.values())) == 3


async def test_a_key_means_nothing_where_the_load_alone_decides():
    three = fleet(*(decoder(port, "m") for port in (1, 2, 3)), policy="power_of_two")
    assert len({three.choose("m", b"key").address.port for _ in range(60)}) == 3


async def test_round_robin_takes_turns():
    three = fleet(*(decoder(port, "m") for port in (1, 2, 3)), policy="round_robin")
    assert [three.choose("m", b"key").address.port for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]


async def test_an_unknown_model_and_a_fleet_that_is_away_are_different_errors():
    with pytest.raises(UnknownModel, match="a"):
        fleet(decoder(1, "a"), decoder(2)).choose("x")
    with pytest.raises(Unavailable):
        fleet(decoder(1), decoder(2)).choose("x")


async def test_a_model_whose_decoders_are_away_is_not_unknown():
    gone = decoder(2, "x")
    gone._see(None)
    with pytest.raises(Unavailable):
        fleet(decoder(1, "a"), gone).choose("x")


async def test_models_are_the_union_over_ready_decoders():
    three = fleet(decoder(1, "a", "b"), decoder(2, "b", "c"), decoder(3))
    assert list(three.models()) == ["a", "b", "c"]


async def test_other_names_lead_to_their_model_and_are_listed():
    two = fleet(decoder(1, "a"), decoder(2, "b"), aliases={"gpt": "b", "old": "gone"})
    assert two.choose("gpt").address.port == 2
    assert two.true_name("gpt") == "b"
    assert list(two.models()) == ["a", "b", "gpt"]


async def test_a_decoder_that_fails_is_left_out_for_a_while():
    one, other = decoder(1, "m"), decoder(2, "m")
    two = fleet(one, other)
    for _ in range(5):
        one.judge(BadBackend("x"))
    assert one.state(trio.current_time()) == "ejected"
    assert {two.choose("m", str(n).encode()) for n in range(50)} == {other}
    assert two.another("m", None, [other]) is one  # better than none
    await trio.sleep(5.1)
    assert {two.choose("m", str(n).encode()) for n in range(50)} == {one, other}


async def test_all_are_asked_when_most_fail():
    three = [decoder(port, "m") for port in (1, 2, 3)]
    for bad in three:
        for _ in range(5):
            bad.judge(BadBackend("x"))
    assert {fleet(*three).choose("m", str(n).encode()) for n in range(50)} == {*three}


async def test_a_lease_counts_for_as_long_as_it_is_held_and_in_failure():
    one = decoder(1, "a")
    with one.lease():
        assert one.in_flight == 1
        with pytest.raises(ZeroDivisionError), one.lease():
            raise ZeroDivisionError
        assert one.in_flight == 1
    assert one.in_flight == 0


@pytest.mark.parametrize(
    ("status", "served"),
    [
        ({"models": ["a"], "max_model_len": 5}, Served(models=("a",), max_model_len=5)),
        ({"models": ["a"], "role": "decoder"}, Served(models=("a",))),
        ({"models": []}, Served(models=("default",))),
        ({}, Served(models=("default",))),
        ({"models": "a", "max_model_len": "x"}, Served(models=("default",))),
        ({"models": ["a"], "role": "prefiller"}, None),
    ],
)
async def test_what_a_decoder_says_of_itself_is_read_with_care(
    status: dict[str, Any], served: Served | None
):
    assert parse_served(status, ("default",)) == served
