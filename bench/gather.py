"""What it brings to let tokens gather where processor time is short (`relay/pressure.py`): `python bench/gather.py`.

100 streams at 50 tokens a second from a stock gRPC server, whose messages come one by one, while another process wants the
gateway's core too. The gateway with and without gathering take turns; what is told are medians.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from attrs import evolve

from bench.load.crowd import Target
from bench.load.loads import Figures, paced
from bench.stacks.lineup import STACKS, Running, Stack, pin, running_decoder, running_stack

ROUNDS = 5
CORE = 0
NICENESS = 8
"""Leaves the gateway a quarter of its core, which is what it needs, or a little less."""
WINDOWS_S = ("0", "0.02")


def stack_with(window_s: str) -> Stack:
    """Return the gateway that lets tokens gather for so long at the most."""
    ours = STACKS["ours"]
    setting = f"ARK_GRPC_GATHER_S={window_s}"
    return evolve(
        ours,
        name=window_s,
        command=lambda port, decoder, folder: [
            "/usr/bin/env", setting, *ours.command(port, decoder, folder)
        ],
    )  # fmt: skip


@contextmanager
def another_at(core: int) -> Iterator[None]:
    """Have a process want a core all the time, until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        process.kill()
        process.wait()


def measured(running: Running) -> Figures:
    """Return the figures of one round."""
    target = Target(port=running.port, pid=running.pid)
    return paced(target, streams=100, pace_ms=20, warm_s=1.5, window_s=3.0)


def main() -> None:
    """Print what a token costs and how late it is, with and without."""
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - {CORE})
    with ExitStack() as exits:
        decoder = exits.enter_context(running_decoder("spread"))
        stacks = {
            window_s: exits.enter_context(running_stack(stack_with(window_s), decoder))
            for window_s in WINDOWS_S
        }
        for running in stacks.values():
            pin(running.pid, {CORE})
            os.setpriority(os.PRIO_PROCESS, running.pid, NICENESS)
        exits.enter_context(another_at(CORE))
        rounds: dict[str, list[Figures]] = {window_s: [] for window_s in WINDOWS_S}
        for _ in range(ROUNDS):
            for window_s, running in stacks.items():
                rounds[window_s].append(measured(running))
    for window_s, figures in rounds.items():
        cpu_us = statistics.median(one["cpu_us_token"] for one in figures)
        late = {
            name: statistics.median(one["delay_ms"][name] for one in figures)
            for name in ("p50", "p99")
        }
        told = f"{late['p50']:.1f} / {late['p99']:.1f} ms late (median / 99th percentile)"
        print(f"gather_s={window_s}: {cpu_us:.1f} µs a token, {told}")
    without, gathered = (
        statistics.median(one["cpu_us_token"] for one in rounds[window_s]) for window_s in WINDOWS_S
    )
    print(f"CPU a token with gathering to without: {gathered / without:.2f}")


if __name__ == "__main__":
    main()
