"""What the gateway costs beside other ways to do the same: `make bench`.

All of it takes about 15 minutes, `QUICK=1` 3, and writes bench/results/ and docs/performance.md. A part of it prints figures
only: `python bench/gateway.py --load paced100 --regime stepped --stacks ours,strong --rounds 3 --pins pinned`.
"""

import argparse
import resource
import statistics
import sys
from pathlib import Path

from attrs import evolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.cells import CELLS
from bench.rounds import Sample, rounds_of, said
from bench.stacks.lineup import STACKS

REGIMES = ("stepped", "spread", "sse")


def main() -> None:
    args = _arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    samples = []
    for regime in args.regime:
        stacks = [STACKS[name] for name in args.stacks]
        cells = [
            evolve(cell, pins=tuple(pin for pin in cell.pins if pin in args.pins))
            for cell in CELLS
            if any(map(cell.name.startswith, args.load))
        ]
        for sample in rounds_of(regime, cells, stacks, args.rounds):
            print(said(sample), flush=True)
            samples.append(sample)
    _print_medians(samples)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    loads = ", ".join(cell.name for cell in CELLS)
    parser.add_argument(
        "--load", type=words, default=[""], help=f"beginnings of names, of: {loads}"
    )
    parser.add_argument("--regime", type=words, default=list(REGIMES), help=", ".join(REGIMES))
    parser.add_argument("--stacks", type=words, default=list(STACKS), help=", ".join(STACKS))
    parser.add_argument("--pins", type=words, default=["pinned", "unpinned"])
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _print_medians(samples: list[Sample]) -> None:
    """Print the median of the rounds, a line a figure: each stack's, and its ratio to the strong baseline's."""
    rows: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for sample in samples:
        for key, value in sample.figures.items():
            number = value.get("p50") if isinstance(value, dict) else value
            if isinstance(number, float):
                row = rows.setdefault((sample.regime, sample.cell, sample.pin, key), {})
                row.setdefault(sample.stack, []).append(number)
    print()
    for place, stacks in rows.items():
        middles = {name: statistics.median(numbers) for name, numbers in stacks.items()}
        strong = middles.get("strong")
        texts = [
            f"{name} {middle:.4g}" + (f" ({middle / strong:.2f})" if strong else "")
            for name, middle in middles.items()
        ]
        print(f"{place[0]:8}{place[1]:13}{place[2]:9}{place[3]:16}{'  '.join(texts)}")


if __name__ == "__main__":
    main()
