import pytest

from ark_trio.protocol.fault import Fault, echo, invalid_request, join


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (10**30, "1" + "0" * 30),
        ("a\n", '"a\\n"'),
        ("é" * 200, '"' + "é" * 200 + '"'),
        ("é" * 201, '"' + "é" * 200 + '"…'),
        ([1] * 1000, "a list"),
        ({"a": 1}, "an object"),
    ],
)
def test_input_is_echoed_in_the_caller_s_terms(value, spelled):
    assert echo(value) == spelled


@pytest.mark.parametrize(
    ("place", "below", "joined"),
    [("a", "b", "a.b"), ("a[0]", "", "a[0]"), ("", "b", "b"), ("", "", "")],
)
def test_places_are_joined_as_openai_spells_them(place, below, joined):
    assert join(place, below) == joined


def test_a_fault_becomes_an_invalid_request():
    error = invalid_request(Fault("is odd", place="n"))
    assert (error.message, error.param, error.status) == ("n: is odd.", "n", 400)


def test_a_bug_of_ours_is_not_blamed_on_the_caller():
    with pytest.raises(ZeroDivisionError):
        invalid_request(ZeroDivisionError())
