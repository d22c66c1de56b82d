"""Which decoder takes a request."""

from collections import Counter
from typing import Any

import pytest

from ark_trio.errors import Unavailable, UnknownModel
from ark_trio.fleet.decoder import Decoder, Served, parse_served
from ark_trio.fleet.fleet import Fleet
from ark_trio.settings.address import Address


def decoder(port: int, *models: str, in_flight: int = 0) -> Decoder:
    channel: Any = object()
    return Decoder(
        address=Address(host="127.0.0.1", port=port),
        channel=channel,
        default_models=(),
        served=Served(models=models) if models else None,
        in_flight=in_flight,
    )


def test_the_decoder_with_the_fewest_requests_of_ours_is_chosen():
    fleet = Fleet(decoders=[decoder(1, "m", in_flight=2), decoder(2, "m", in_flight=1)])
    assert fleet.choose("m").address.port == 2


def test_ties_fall_at_random():
    fleet = Fleet(decoders=[decoder(port, "m") for port in (1, 2, 3)])
    seen = Counter(fleet.choose("m").address.port for _ in range(300))
    assert set(seen) == {1, 2, 3}
    assert min(seen.values()) > 50


def test_only_decoders_of_the_model_are_asked():
    fleet = Fleet(decoders=[decoder(1, "a"), decoder(2, "b", in_flight=9)])
    assert fleet.choose("b").address.port == 2


def test_an_unknown_model_and_a_fleet_that_is_away_are_different_errors():
    with pytest.raises(UnknownModel, match="a"):
        Fleet(decoders=[decoder(1, "a"), decoder(2)]).choose("x")
    with pytest.raises(Unavailable):
        Fleet(decoders=[decoder(1), decoder(2)]).choose("x")


def test_models_are_the_union_over_ready_decoders():
    fleet = Fleet(decoders=[decoder(1, "a", "b"), decoder(2, "b", "c"), decoder(3)])
    assert list(fleet.models()) == ["a", "b", "c"]


def test_a_lease_counts_for_as_long_as_it_is_held_and_in_failure():
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
def test_what_a_decoder_says_of_itself_is_read_with_care(
    status: dict[str, Any], served: Served | None
):
    assert parse_served(status, ("default",)) == served
