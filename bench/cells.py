"""What is measured: the loads, in the order in which a round does them."""

from typing import Any

from attrs import frozen

GRPC = ("stepped", "spread")
HTTP = ("sse",)


@frozen(kw_only=True)
class Cell:
    """One load under one name."""

    name: str
    load: str
    """In `bench/load/loads.py`."""
    arguments: dict[str, Any]
    regimes: tuple[str, ...] = GRPC + HTTP
    pins: tuple[str, ...] = ("pinned", "unpinned")
    direct: bool = False
    """The decoder is read directly too: what a gateway adds is told against that."""
    rounds: int = 5
    """At most."""
    turns: int = 1
    """How often the stacks take turns within a round, whose figures are the medians: a machine that is slow for a second hits a short load
    of one stack whole, and of the next not at all."""
    fresh: bool = False
    """Each stack is started anew: memory that an earlier load left would hide this one's."""


def _paced(streams: int, pace_ms: int) -> dict[str, Any]:
    return {"streams": streams, "pace_ms": pace_ms, "warm_s": 0.3, "window_s": 1.3}


def _short(name: str, *, stream: bool) -> Cell:
    arguments = {"requests": 400, "clients": 8, "tokens": 16, "stream": stream}
    return Cell(name=name, load="short", arguments=arguments, regimes=GRPC, turns=3)


CELLS = (
    Cell(
        name="first",
        load="first",
        arguments={"requests": 45, "tokens": 4},
        direct=True,
        turns=3,
    ),
    Cell(name="paced100", load="paced", arguments=_paced(100, 20), direct=True),
    Cell(
        name="paced300",
        load="paced",
        arguments=_paced(300, 50),
        regimes=GRPC,
        direct=True,
    ),
    Cell(name="backlog", load="backlog", arguments={"streams": 32, "tokens": 600}, regimes=GRPC),
    _short("short_stream", stream=True),
    _short("short_whole", stream=False),
    Cell(
        name="burst",
        load="burst",
        arguments={"streams": 100, "tokens": 4, "times": 2},
        regimes=GRPC,
        direct=True,
    ),
    Cell(
        name="held",
        load="held",
        arguments={"streams": 2000, "pace_ms": 1000, "window_s": 2.0},
        regimes=("stepped", "sse"),
        pins=("pinned",),
        rounds=3,
        fresh=True,
    ),
)

WAYS = {
    "stepped": "pace=20",
    "spread": "pace=20",
    "echo": "count=100 gap_s=0.02",
}
"""How each decoder is asked for 100 tokens, one every 20 ms."""
STEPS = Cell(
    name="steps", load="steps", arguments={"streams": 100, "tokens": 100}, pins=("unpinned",)
)
