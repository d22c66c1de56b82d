"""The units as they stand in the repository, before any systemd runs them."""

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
EVERYTHING = [*SERVICES, *UNITS.glob("*.socket"), *UNITS.glob("*.target")]

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(60)]


def analyze(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nothing_in_the_units_is_unknown_or_wrong():
    done = analyze("verify", "--recursive-errors=no", *EVERYTHING)
    # The one thing missing is what is not installed here.
    complaints = {line.partition(": ")[2] for line in done.stderr.splitlines()}
    assert complaints <= {
        "Command /opt/ark/bin/ark-trio is not executable: No such file or directory"
    }


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_is_exposed_by_no_more_than_1_5(unit):
    done = analyze("security", "--offline=true", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout
    assert re.search(r"exposure level for \S+: 1\.[0-5] OK", done.stdout)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_each_point_that_is_still_open_has_its_reason_in_the_unit(unit):
    done = analyze("security", "--offline=true", unit)
    open_points = set(re.findall(r"^✗ ([A-Za-z]+)=", done.stdout, re.MULTILINE))
    comments = "\n".join(line for line in unit.read_text().splitlines() if line.startswith("#"))
    assert open_points
    assert {point for point in open_points if f"{point}=" not in comments} == set()


def test_a_stop_may_take_longer_than_settling_and_drain():
    from ark_trio.config import Settings

    limits = Settings().limits
    for unit in SERVICES:
        found = re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert found
        assert int(found[1]) > limits.settle_s + limits.drain_s + 5


def test_no_unit_holds_a_secret():
    for file in UNITS.rglob("*"):
        if file.is_file():
            assert not re.search(
                r"(?i)^(Set|Environment.*)(key|secret|token|password)", file.read_text()
            )
