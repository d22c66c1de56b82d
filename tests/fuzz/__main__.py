"""`python -m tests.fuzz`: so many inputs against the gateway; what is found is saved in `found/`, where `make test` replays it.

An input is made from its seed alone: `--seed 7 --inputs 1000 --first 500` plays the second half of `--seed 7 --inputs 1000`.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence

import trio

from tests.fuzz.fire import FoundError, Tally, fire
from tests.fuzz.play import FOUND, Play, make_play
from tests.fuzz.target import Target, TargetFailedError, open_target
from tests.support.processes import SERVERS

WARM_UP = 500
"""Inputs before memory is first looked at: what is loaded and cached once is no leak."""
GROWN_BYTES = 48 << 20
"""What the process may grow by in the run: the allocator keeps what a burst of large inputs needed."""
BATCH = 20_000


def fuzz(seed: str, first: int, inputs: int, server: str, *, survey: bool = False) -> Tally:
    """Play the inputs against a server of its own, print what happened, and compare what is left.

    Raises:
        FoundError, TargetFailedError: the gateway did wrong.
    """
    with open_target(server) as target:
        target.survey = survey
        fresh = target.census()
        _fire(target, _plays(f"{seed}:warm-up", 0, WARM_UP))
        before = fresh | {"resident_bytes": target.census()["resident_bytes"]}
        whole = Tally()
        for at in range(first, first + inputs, BATCH):
            tally = _fire(target, _plays(seed, at, min(BATCH, first + inputs - at)))
            print(f"{server}, seed {seed}, from {at}: {tally}", flush=True)
            for name in ("statuses", "by_grammar"):
                getattr(whole, name).update(getattr(tally, name))
            whole.played += tally.played
            whole.silent += tally.silent
            whole.seconds += tally.seconds
            whole.bystander_tokens += tally.bystander_tokens
        for fault, number in target.faults.most_common():
            print(f"{number:6} {fault}")
        after = target.await_rest(before, GROWN_BYTES)
    rows = [f"{key}: {before[key]} -> {after[key]}" for key in before]
    print(f"{server}: before -> after: {', '.join(rows)}; warnings {target.warnings}", flush=True)
    return whole


def _plays(seed: str, first: int, inputs: int) -> list[Play]:
    return [make_play(f"{seed}:{number}") for number in range(first, first + inputs)]


def _fire(target: Target, plays: Sequence[Play]) -> Tally:
    try:
        return trio.run(fire, target, plays)
    except BaseExceptionGroup as group:
        found = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from group  # noqa: ASYNC123 (the group says nothing more)


def narrow(suspects: Sequence[Play], server: str) -> list[Play]:
    """Return the one input that does it alone, or all of them if none does."""
    for play in suspects:
        try:
            with open_target(server) as target:
                _fire(target, [play])
        except (FoundError, TargetFailedError):
            return [play]
    return list(suspects)


def save(plays: Sequence[Play]) -> None:
    """Keep inputs for ever."""
    FOUND.mkdir(exist_ok=True)
    for play in plays:
        text = play.to_json()
        path = FOUND / f"{hashlib.sha256(text).hexdigest()[:12]}.json"
        path.write_bytes(text)
        print(f"saved {path}", flush=True)


def main() -> int:
    """Run it; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", default=str(int(time.time())), help="default: the time")
    parser.add_argument("--first", type=int, default=0, metavar="N")
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N")
    parser.add_argument("--survey", action="store_true", help="count all faults, save none")
    parser.add_argument(
        "--server", choices=SERVERS[:2], help="default: four of five inputs to the first"
    )
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    if asked.server:
        shares = {asked.server: (asked.first, asked.inputs)}
    else:
        most = asked.inputs * 4 // 5
        shares = {
            SERVERS[0]: (asked.first, most),
            SERVERS[1]: (asked.first + most, asked.inputs - most),
        }
    for server, (first, inputs) in shares.items():
        try:
            fuzz(asked.seed, first, inputs, server, survey=asked.survey)
        except FoundError as found:
            print(f"FOUND: {found}", file=sys.stderr, flush=True)
            save(narrow(found.suspects, server))
            return 1
        except TargetFailedError as failure:
            print(f"FOUND: {failure}", file=sys.stderr, flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
