"""Frames are counted as they lie in what was read, wherever it was cut."""

import pytest

from ark_trio.config import Limits
from ark_trio.hyper.flood import Floods

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"\0" * 8
DATA = b"\0\0\x20\0\0\0\0\0\1" + PING[:16] * 2
"""Its payload looks like pings."""


@pytest.mark.parametrize("size", [1, 2, 7, 9, 10, 17, 24, 100, 1000])
def test_frames_are_counted_wherever_what_was_read_was_cut(size: int):
    floods = Floods(Limits(max_http2_control_per_s=10), lambda: 0.0)
    data = PREFACE + (PING + DATA) * 50 + PING
    found = [floods.seen_in(data[at : at + size]) for at in range(0, len(data), size)]
    told = len(data) - len(PING) + 9  # where the head of the one too many ends
    assert found.index("control frames") == (told - 1) // size
