"""Other people's clients, against a gateway in front of the echo engine and in front of the real model."""

import json
import os
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from attrs import frozen

from tests.support.processes import Served, engine, gateway, wait_until
from tests.support.wire import status

MODEL = "deepseek-r1-0528"
NAMES = ["--served-names", MODEL]
CALL = '{"tool": [{"name": "add", "arguments": {"a": 2, "b": 3}}], "pieces": 4}'
"""What the echo engine calls a tool for."""
MUST_CALL: Any = {"tool_choice": "required", "parallel_tool_calls": False}
"""How the real model is brought to call one."""

# Their own telemetry stays off, whatever the tester's shell says.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"


@frozen(kw_only=True)
class Stack:
    """A gateway and the decoder behind it."""

    door: Served
    decoder: Served
    engine: Literal["echo", "real"]
    """The echo engine does what it is told in the conversation; the real model has to be held to it."""

    @property
    def base_url(self) -> str:
        return f"{self.door.url}/v1"

    @property
    def long_text(self) -> str:
        """What to say for an answer that goes on and on."""
        told = {
            "echo": "count=1000000 gap_s=0.01",
            "real": "Write a very long story about a fox and a crow. Do not stop.",
        }
        return told[self.engine]

    @property
    def call(self) -> str:
        """What to say for a call of `add`."""
        return CALL if self.engine == "echo" else "What is 2 plus 3? Use the tool."

    @property
    def thought(self) -> tuple[str, dict[str, Any]]:
        """What to say, and what to ask beside it, for an answer of "Yes." after a thought, "let me see"."""
        said = "<think>let me see</think>\n\nYes."
        if self.engine == "echo":
            return json.dumps({"text": said}), {}
        return "Is it?", {"structured_outputs": {"choice": [said]}}

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
        yield Stack(door=door, decoder=decoder, engine="echo")


@pytest.fixture(scope="session")
def real() -> Iterator[Stack]:
    with engine("prefiller", *NAMES, driver="llama") as prefiller:
        flags = [*NAMES, "--prefillers", f"127.0.0.1:{prefiller.port}"]
        with engine("decoder", *flags, driver="llama") as decoder:
            with gateway("proxy", [decoder.port]) as door:
                yield Stack(door=door, decoder=decoder, engine="real")


@pytest.fixture(params=["echo", "real"])
def stack(request: pytest.FixtureRequest) -> Stack:
    chosen: Stack = request.getfixturevalue(request.param)
    return chosen
