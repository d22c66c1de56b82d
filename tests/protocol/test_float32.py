import math
import struct
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.protocol.float32 import FLOAT32_LIMIT, shortest_float


def as_float32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def digits(number):
    return len(Decimal(repr(number)).normalize().as_tuple().digits)


def shorter_exists(exact, length):
    """Whether a decimal of `length` digits, the nearest or its neighbours, has the same 32 bits."""
    nearest = f"{exact:.{length - 1}e}"
    unit = Decimal(10) ** (int(nearest.split("e")[1]) - length + 1)
    candidates = (float(Decimal(nearest) + unit * k) for k in (-1, 0, 1))
    return any(abs(c) < FLOAT32_LIMIT and as_float32(c) == exact for c in candidates)


def check_shortest(exact):
    found = shortest_float(exact)
    assert as_float32(found) == exact
    if exact:
        assert not any(shorter_exists(exact, length) for length in range(1, digits(found)))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(as_float32(0.7))
@example(as_float32(16777216.0))
@example(3.4028234663852886e38)
@example(1e-45)
def test_no_shorter_decimal_names_the_same_float(number):
    check_shortest(as_float32(number))


def test_powers_of_two_are_shortest_though_their_neighbours_lie_unevenly():
    for exponent in range(-149, 128):
        check_shortest(2.0**exponent)
        check_shortest(-(2.0**exponent))


@pytest.mark.parametrize("number", [0.7, 0.1, 1.0, 1e-5, 3.14159, -0.25, 100000.0, 1e10])
def test_what_was_written_is_read_back(number):
    assert repr(shortest_float(as_float32(number))) == repr(number)


def test_what_is_not_finite_passes():
    assert shortest_float(-math.inf) == -math.inf
    assert math.isnan(shortest_float(math.nan))


def test_a_double_is_refused():
    with pytest.raises(ValueError, match="32-bit"):
        shortest_float(0.1)
