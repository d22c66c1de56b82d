"""Other people's clients, against a gateway in front of the echo engine and in front of the real model."""

import os
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.support.processes import Served, engine, gateway, wait_until
from tests.support.wire import status

MODEL = "deepseek-r1-0528"
NAMES = ["--served-names", MODEL]

# Their own telemetry stays off, whatever the tester's shell says.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"


@frozen(kw_only=True)
class Stack:
    """A gateway and the decoder behind it."""

    door: Served
    decoder: Served

    @property
    def base_url(self) -> str:
        return f"{self.door.url}/v1"

    def cancelled(self) -> int:
        """How many calls the decoder has seen cancelled."""
        return int(status(self.decoder.port)["cancelled"])

    def await_cancel(self, before: int) -> None:
        """Until the decoder has seen one more cancel and has nothing left to do."""

        def seen() -> bool:
            now = status(self.decoder.port)
            return bool(now["cancelled"] == before + 1 and now["busy"] == 0)

        wait_until(seen, within_s=10, what="the cancel at the decoder")


@pytest.fixture(scope="session")
def echo() -> Iterator[Stack]:
    with engine("decoder", *NAMES) as decoder, gateway("proxy", [decoder.port]) as door:
        yield Stack(door=door, decoder=decoder)


@pytest.fixture(scope="session")
def real() -> Iterator[Stack]:
    with engine("prefiller", *NAMES, driver="llama") as prefiller:
        flags = [*NAMES, "--prefillers", f"127.0.0.1:{prefiller.port}"]
        with engine("decoder", *flags, driver="llama") as decoder:
            with gateway("proxy", [decoder.port]) as door:
                yield Stack(door=door, decoder=decoder)


@pytest.fixture(params=["echo", "real"])
def stack(request: pytest.FixtureRequest) -> Stack:
    chosen: Stack = request.getfixturevalue(request.param)
    return chosen
