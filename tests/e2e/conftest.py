"""One decoder and one gateway of each kind for the whole session; tests that kill things start their own."""

from collections.abc import Iterator

import pytest

from tests.support.processes import SERVERS, Served, engine, gateway


@pytest.fixture(scope="session")
def decoder() -> Iterator[Served]:
    with engine("decoder", "--served-names", "echo") as served:
        yield served


@pytest.fixture(scope="session", params=SERVERS)
def door(request: pytest.FixtureRequest, decoder: Served) -> Iterator[Served]:
    """The gateway, served in each of the ways that users do."""
    with gateway(request.param, [decoder.port]) as served:
        yield served
