"""What a run found, and where: kept as JSON, a line a sample, so that any report can be made from it again."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from bench.rounds import Sample

ROOT = Path(__file__).parents[1]


@frozen(kw_only=True)
class Results:
    """One run."""

    about: dict[str, str]
    samples: tuple[Sample, ...]


def about_here() -> dict[str, str]:
    """Return what the figures depend on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit.stdout.decode().strip(),
        "machine": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "system": f"Linux {platform.release()}, CPython {sys.version.split()[0]}",
    }


def write_results(path: Path, results: Results) -> None:
    """Write a run down."""
    samples = ",\n".join(json.dumps(_rounded(asdict(sample))) for sample in results.samples)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{"about": {json.dumps(results.about)},\n"samples": [\n{samples}\n]}}\n')


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote."""
    found: dict[str, Any] = json.loads(path.read_text())
    samples = tuple(Sample(**sample) for sample in found["samples"])
    return Results(about=found["about"], samples=samples)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def failures(samples: Sequence[Sample]) -> list[str]:
    """Return a line for each load that lost something."""
    return [
        f"{s.stack}, {s.cell} {s.regime} {s.pin}, round {s.round + 1}: {s.figures['failed']}"
        for s in samples
        if "failed" in s.figures
    ]
