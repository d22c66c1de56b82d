"""What the gateway costs beside other ways to do the same: `make bench`.

All of it takes about 20 minutes and writes bench/results/gateway.json and docs/performance.md. With `--quick` it takes 3 and
prints only, as does a part of it:
`python bench/gateway.py --load paced100 --regime stepped --stacks ours,strong --pins pinned --rounds 3`.
"""

import argparse
import resource
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from attrs import evolve

from bench.cells import CELLS, GRPC, HTTP
from bench.figures import Figures
from bench.record import Results, about_here, failures, read_results, write_results
from bench.report import goals, write_report
from bench.rounds import Sample, rounds_of, said, ways_of_writing
from bench.stacks.lineup import STACKS

KEPT = Path(__file__).parent / "results" / "gateway.json"


def main() -> int:
    args = _arguments()
    if args.report:
        write_report(read_results(KEPT))
        return 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    samples = []
    for sample in _measure(args):
        print(said(sample), flush=True)
        samples.append(sample)
    results = Results(about=about_here(), samples=tuple(samples))
    _print_medians(samples)
    print(f"\n{goals(Figures(results))}")
    if args.whole:
        write_results(KEPT, results)
        write_report(read_results(KEPT))
    return 1 if failures(samples) else 0


def _measure(args: argparse.Namespace) -> Iterator[Sample]:
    cells = [
        evolve(cell, pins=tuple(pin for pin in cell.pins if pin in args.pins))
        for cell in CELLS
        if any(map(cell.name.startswith, args.load))
    ]
    if args.whole:
        yield from ways_of_writing()
    for regime in args.regime:
        yield from rounds_of(regime, cells, [STACKS[name] for name in args.stacks], args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    loads = ", ".join(cell.name for cell in CELLS)
    regimes = [*GRPC, *HTTP]
    parser.add_argument("--load", type=words, help=f"beginnings of names, of: {loads}")
    parser.add_argument("--regime", type=words, help=", ".join(regimes))
    parser.add_argument("--stacks", type=words, help=", ".join(STACKS))
    parser.add_argument("--pins", type=words, help="pinned, unpinned")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="two rounds, pinned, no marks")
    parser.add_argument("--report", action="store_true", help="write the page from the last run")
    args = parser.parse_args()
    parts = (args.load, args.regime, args.stacks, args.pins)
    args.whole = not args.quick and not any(parts)
    quick = args.quick
    args.load = args.load or [""]
    args.regime = args.regime or (list(GRPC) if quick else regimes)
    args.stacks = args.stacks or (["ours", "strong", "predecessor"] if quick else list(STACKS))
    args.pins = args.pins or (["pinned"] if quick else ["pinned", "unpinned"])
    args.rounds = args.rounds or (2 if quick else 5)
    return args


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
    sys.exit(main())
