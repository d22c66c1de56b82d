"""Images built once, then an engine with a network of its own that runs them."""

import time
from collections.abc import Iterator

import pytest

from tests.support.docker_engine import (
    Engine,
    docker_engine,
    docker_home,
    install_tools,
    load_base_image,
    megabytes,
    missing_features,
)
from tests.support.installed import make_wheels
from tests.support.lane import say


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine that has built both images."""
    if lacking := missing_features():
        pytest.fail(f"this machine lacks: {'; '.join(lacking)}")
    tools = install_tools()
    with docker_home() as home:
        make_wheels()
        with docker_engine(home, tools, own_network=False) as builder:
            load_base_image(builder)
            began = time.monotonic()
            builder.compose("build", within_s=400)
            say(f"both images built in {time.monotonic() - began:.0f} s")
        with docker_engine(home, tools, own_network=True) as runner:
            for image in ("ark-trio-gateway", "ark-trio-engine", "python:3.11-slim-bookworm"):
                say(f"{image}: {megabytes(runner, image):.0f} MB")
            yield runner
