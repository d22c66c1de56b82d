"""The benchmark's decoders speak the contract: gRPC's own client gets from each what it asked for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.decoders.messages import MODEL
from bench.load.tape import STAMP
from bench.stacks.lineup import Running, running_decoder

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["stepped", "spread"])
def decoder(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running_decoder(request.param) as running:
        yield running


def grpcio(decoder: Running, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.grpcio_client", str(decoder.port), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, timeout=90)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_each_token_comes_with_its_instant_then_the_end(decoder):
    seen = grpcio(decoder, "stream", "pace=5", "40")
    assert seen["status"] == "OK"
    assert len(seen["contents"]) == 41
    stamps = [STAMP.search(f'{text}"'.encode()) for text in seen["contents"][:-1]]
    instants = [int(found[1]) for found in stamps if found]
    assert len(instants) == 40
    assert instants == sorted(instants)
    assert instants[-1] - instants[0] > 35 * 5000


def test_more_than_the_windows_hold_comes_whole(decoder):
    """2 MB against windows that begin at 64 KiB."""
    seen = grpcio(decoder, "stream", "pace=0", "4000")
    assert seen["status"] == "OK"
    assert len(seen["contents"]) == 4001


def test_status_names_the_model(decoder):
    assert grpcio(decoder, "status")["models"] == [MODEL]
