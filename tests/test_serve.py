"""What each of several workers takes of the gateway's limits."""

import pytest

from ark_trio.config import FleetSettings, Limits, Settings
from ark_trio.relay.siblings import Siblings
from ark_trio.serve import share_of


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("places", "line"), [(4096, 256), (16, 0), (24, 5), (17, 16)])
def test_the_workers_parts_of_places_and_line_add_up_to_the_whole(
    workers: int, places: int, line: int
):
    whole = Settings(limits=Limits(max_requests=places, max_waiting=line))
    parts = [
        share_of(whole, Siblings(number=number + 1, count=workers)).limits
        for number in range(workers)
    ]
    assert sum(part.max_requests for part in parts) == places
    assert sum(part.max_waiting for part in parts) == line
    assert max(part.max_requests for part in parts) - min(part.max_requests for part in parts) <= 1


def test_no_worker_is_without_a_place_or_a_retry():
    whole = Settings(limits=Limits(max_requests=1), fleet=FleetSettings(retries_per_s=3))
    parts = [share_of(whole, Siblings(number=number, count=4)) for number in (1, 2, 3, 4)]
    assert [part.limits.max_requests for part in parts] == [1] * 4
    assert [part.fleet.retries_per_s for part in parts] == [1] * 4


def test_what_a_reloaded_file_says_of_workers_changes_no_part():
    """There are as many workers as when the gateway was started."""
    whole = Settings(workers=8, limits=Limits(max_requests=10))
    assert share_of(whole, Siblings(number=1, count=2)).limits.max_requests == 5
