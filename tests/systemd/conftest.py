"""One installation for all, and a freshly booted systemd for each module; its units run the echo engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.booted import Host, booted, missing_features
from tests.support.installed import PLACE, installation
from tests.support.lane import say

ECHO = """\
[engine]
driver = "echo"
served_names = ["echo"]

[limits]
settle_s = 0
drain_s = 20
"""


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    if lacking := missing_features():
        pytest.fail(f"this machine lacks: {'; '.join(lacking)}")
    with installation() as folder:
        yield folder


@pytest.fixture(scope="module")
def host(installed: Path) -> Iterator[Host]:
    """A booted host with the units installed by their own command and the echo engine configured."""
    with booted(binds={PLACE: installed}) as machine:
        say(f"systemd booted in {machine.boot_s:.2f} s")
        machine.run(f"{PLACE}/bin/ark-trio", "install-units")
        machine.write("/etc/ark/ark.toml", ECHO)
        yield machine
