"""The shortest decimal that names a 32-bit float.

The wire carries `float` in 32 bits. Read back naively, 0.7 becomes 0.699999988079071, which is the same number to the
engine but mangles a tool schema; the shortest decimal with the same 32 bits is what the writer meant.
"""

from math import isfinite
from struct import Struct

FLOAT32_LIMIT = 3.4028235677973366e38
"""Numbers from here on round to infinity in 32 bits."""

_SMALLEST_NORMAL = 1.1754943508222875e-38
# Any float has its 9-digit decimal; 6 digits always survive the way there and back, so nothing shorter need be tried.
_DIGITS = ("%.6g", "%.7g", "%.8g", "%.9g")
_ALL_DIGITS = ("%.1g", "%.2g", "%.3g", "%.4g", "%.5g", *_DIGITS)
# Below a power of two floats lie twice as close as above it, so the shortest decimal need not be the nearest one of its
# length. Of all powers of two this matters for three.
_SHORTER_THAN_NEAREST = {
    sign * power: sign * shortest
    for power, shortest in (
        (2.0**-96, 1.2621775e-29),
        (2.0**87, 1.5474251e26),
        (2.0**90, 1.2379401e27),
    )
    for sign in (1, -1)
}

_F32 = Struct("<f")
_pack, _unpack = _F32.pack, _F32.unpack


def shortest_float(number: float) -> float:
    """Return the shortest decimal whose 32-bit float is `number`, which must itself be a 32-bit float."""
    if not isfinite(number):
        return number
    for pattern in _DIGITS if abs(number) >= _SMALLEST_NORMAL else _ALL_DIGITS:
        candidate = float(pattern % number)
        if abs(candidate) < FLOAT32_LIMIT and _unpack(_pack(candidate))[0] == number:
            break
    else:
        raise ValueError("not a 32-bit float")
    return _SHORTER_THAN_NEAREST.get(number, candidate)
