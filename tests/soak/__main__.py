"""`python -m tests.soak`: two gateways, one of them of two workers, under mixed load while their engines and workers die.

At the end everything is back where it began. Loopback only.
"""

import argparse
import sys
import time
from collections import Counter
from random import Random

import trio
from attrs import frozen

from tests.fuzz.target import Target, TargetFailedError
from tests.soak.chaos import Engines, open_engines, wreak
from tests.soak.clients import Seen, behave
from tests.support.processes import free_port, gateway, is_ready, wait_until

CLIENTS = 24
"""At once, at each gateway."""
WARM_UP_S = 8.0
"""Load without chaos, after which memory is first looked at: what is loaded and cached once is no leak."""
GROWN_BYTES = 48 << 20
ENVIRONMENT = {
    "ARK_LOG_FORMAT": "json",
    "ARK_STALLED_WRITE_S": "3",
    "ARK_CONNECT_S": "2",
    "ARK_FIRST_TOKEN_S": "10",
    "ARK_BETWEEN_TOKENS_S": "10",
    "ARK_MAX_CONNECTIONS_PER_ADDRESS": "1000",
}
PROVOKED = frozenset({"worker_died"})


@frozen(kw_only=True)
class Report:
    """What a soak has shown."""

    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]
    seen: dict[str, Seen]
    chaos: Counter[str]

    def __str__(self) -> str:
        lines = [f"{'':24}{'before':>14}{'after':>14}"]
        for name, before in self.before.items():
            for key, value in before.items():
                lines.append(f"{name + ' ' + key:24}{value:>14,}{self.after[name][key]:>14,}")
        lines += [f"{name} clients: {dict(seen.outcomes)}" for name, seen in self.seen.items()]
        return "\n".join([*lines, f"chaos: {dict(self.chaos)}"])


def soak(seconds: float, seed: str) -> Report:
    """Soak, and compare what is left.

    Raises:
        TargetFailedError: something crashed, or was kept.
    """
    ports = [free_port(), free_port()]
    with open_engines(ports) as engines:
        with (
            gateway("proxy", ports, env=ENVIRONMENT) as alone,
            gateway("proxy", ports, env={**ENVIRONMENT, "ARK_WORKERS": "2"}) as crowd,
        ):
            wait_until(lambda: len(crowd.children()) == 2, what="two workers")
            targets = {
                "alone": Target(alone, ports, "proxy"),
                "crowd": Target(crowd, ports, "proxy", PROVOKED),
            }
            time.sleep(3)  # every worker has met every engine
            for target in targets.values():
                target.meet()
            before = {name: target.census() for name, target in targets.items()}
            seen = {"alone": Seen(), "crowd": Seen()}
            trio.run(_warm_up, targets, seen, seed)
            for name, target in targets.items():
                before[name]["resident_bytes"] = target.census()["resident_bytes"]
            seen["crowd"].cuts_allowed = True
            chaos: Counter[str] = Counter()
            trio.run(_run, targets, seen, engines, chaos, seconds, seed)
            wait_until(lambda: len(crowd.children()) == 2, 60, "two workers")
            wait_until(lambda: is_ready(crowd.port), what="the crowd")
            time.sleep(3)
            targets["crowd"].meet()
            after = {
                name: target.await_rest(before[name], GROWN_BYTES, within_s=40)
                for name, target in targets.items()
            }
    return Report(before=before, after=after, seen=seen, chaos=chaos)


async def _warm_up(targets: dict[str, Target], seen: dict[str, Seen], seed: str) -> None:
    with trio.move_on_after(WARM_UP_S):
        await _load(targets, seen, f"{seed}:warm-up")


async def _run(
    targets: dict[str, Target],
    seen: dict[str, Seen],
    engines: Engines,
    chaos: Counter[str],
    seconds: float,
    seed: str,
) -> None:
    alone, crowd = (targets[name].door for name in ("alone", "crowd"))
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_load, targets, seen, seed)
            nursery.start_soon(wreak, engines, alone, crowd, Random(seed), chaos)
            while True:
                await trio.sleep(1)
                targets["crowd"].meet()
                for target in targets.values():
                    target.watch()


async def _load(targets: dict[str, Target], seen: dict[str, Seen], seed: str) -> None:
    async with trio.open_nursery() as nursery:
        for name, target in targets.items():
            for number in range(CLIENTS):
                rng = Random(f"{seed}:{name}:{number}")
                nursery.start_soon(behave, target.door.port, rng, seen[name])


def main() -> int:
    """Run it; 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", default=str(int(time.time())), help="default: the time")
    asked = parser.parse_args()
    print(f"seed {asked.seed}, {asked.seconds:.0f} s", flush=True)
    try:
        report = soak(asked.seconds, asked.seed)
    except TargetFailedError as failure:
        print(f"FOUND: {failure}", file=sys.stderr)
        return 1
    print(report)
    faults = [fault for seen in report.seen.values() for fault in seen.faults]
    for fault in faults[:50]:
        print(f"FOUND: {fault}", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
