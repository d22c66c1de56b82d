"""Rounds: within one, the stacks take turns in each load, so that what else the machine does hits all of them alike."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from bench.cells import HTTP, STEPS, WAYS, Cell
from bench.stacks.lineup import Running, Stack, pin, running_decoder, running_stack

ROOT = Path(__file__).parents[1]
LOAD_S = 180


@frozen(kw_only=True)
class Sample:
    """One load on one stack, once."""

    regime: str
    cell: str
    pin: str
    stack: str
    round: int
    figures: Mapping[str, Any]
    """Empty, but for `failed`, where an answer was not whole."""


def rounds_of(
    regime: str, cells: Sequence[Cell], stacks: Sequence[Stack], rounds: int
) -> Iterator[Sample]:
    """Measure in one regime, and yield what was found, as it is found."""
    stacks = [stack for stack in stacks if regime in stack.behind]
    cells = [cell for cell in cells if regime in cell.regimes]
    if not stacks or not cells:
        return
    with running_decoder(regime) as decoder, ExitStack() as lasting:
        running = {
            stack.name: lasting.enter_context(running_stack(stack, decoder)) for stack in stacks
        }
        for number in range(rounds):
            for cell in [cell for cell in cells if number < cell.rounds]:
                for how in cell.pins:
                    turn = _Turn(regime, cell, how, number, decoder)
                    order = stacks[number % len(stacks) :] + stacks[: number % len(stacks)]
                    yield from turn.measure(order, running)


def ways_of_writing() -> Iterator[Sample]:
    """Tell how each decoder writes, this project's own among them."""
    for regime, text in WAYS.items():
        with running_decoder(regime) as decoder:
            target = {"port": decoder.port, "pid": decoder.pid, "direct": True}
            arguments = {**STEPS.arguments, "text": text}
            plan = {"load": STEPS.load, "arguments": arguments, "target": target, "cpus": []}
            yield Sample(
                regime=regime,
                cell=STEPS.name,
                pin=STEPS.pins[0],
                stack="direct",
                round=0,
                figures=run_load(plan),
            )


class _Turn:
    """One load, one way of pinning, in one round."""

    def __init__(self, regime: str, cell: Cell, how: str, number: int, decoder: Running) -> None:
        self._regime, self._cell, self._how, self._number = regime, cell, how, number
        self._decoder = decoder

    def measure(self, stacks: Sequence[Stack], running: Mapping[str, Running]) -> Iterator[Sample]:
        everywhere = set(range(os.cpu_count() or 1))
        rest = everywhere - {max(everywhere)} or everywhere
        server = {max(everywhere)} if self._how == "pinned" else everywhere
        client = rest if self._how == "pinned" else everywhere
        pin(self._decoder.pid, client)
        if self._cell.fresh:
            for stack in stacks:
                with running_stack(stack, self._decoder) as fresh:
                    pin(fresh.pid, server)
                    yield self._load(fresh, client, start_s=fresh.start_s)
            return
        for served in running.values():
            pin(served.pid, server)
        samples: list[Sample] = []
        for _ in range(self._cell.turns):
            samples += [self._load(running[stack.name], client) for stack in stacks]
            if self._cell.direct:
                samples.append(self._load(self._decoder, client, direct=True))
        for place in range(len(samples) // self._cell.turns):
            yield merged(samples[place :: len(samples) // self._cell.turns])

    def _load(
        self, served: Running, cpus: set[int], *, direct: bool = False, **more: float
    ) -> Sample:
        grpc = direct and self._regime not in HTTP
        target = {"port": served.port, "pid": served.pid, "direct": grpc}
        plan = {
            "load": self._cell.load,
            "arguments": self._cell.arguments,
            "target": target,
            "cpus": sorted(cpus),
        }
        figures = run_load(plan)
        return Sample(
            regime=self._regime,
            cell=self._cell.name,
            pin=self._how,
            stack="direct" if direct else served.name,
            round=self._number,
            figures=figures if "failed" in figures else {**figures, **more},
        )


def merged(turns: Sequence[Sample]) -> Sample:
    """Return the sample whose figures are the medians of some turns', or the first that lost something."""
    for sample in turns:
        if "failed" in sample.figures:
            return sample
    return evolve(turns[0], figures=_medians([sample.figures for sample in turns]))


def _medians(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        key: _medians([each[key] for each in figures])
        if isinstance(value, dict)
        else statistics.median(each[key] for each in figures)
        for key, value in figures[0].items()
    }


def run_load(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Run a load in a process of its own, and return its figures, or why there are none."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(
        command, input=json.dumps(plan).encode(), capture_output=True, cwd=ROOT, timeout=LOAD_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr.decode().strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def said(sample: Sample) -> str:
    """Return a sample as a line."""
    figures = " ".join(f"{key}={_short(value)}" for key, value in sample.figures.items())
    place = f"{sample.regime:8}{sample.cell:13}{sample.pin:9} #{sample.round + 1}"
    return f"{time.strftime('%H:%M:%S')} {place} {sample.stack:12} {figures}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "/".join(f"{number:.3g}" for number in value.values())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
