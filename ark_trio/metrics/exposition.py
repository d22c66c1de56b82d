"""Readings of workers as the text that Prometheus reads.

Source: the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/). prometheus_client writes it too, but
takes ten times as long, in which no stream of this process moves.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from ark_trio.metrics.catalogue import CATALOGUE, Metric
from ark_trio.metrics.tally import Labels, Reading, Value

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def expose(readings: Mapping[str, Reading]) -> Iterator[str]:
    """Yield the exposition metric by metric, so that the caller can let others run in between."""
    for metric in CATALOGUE.values():
        lines = [
            line
            for worker, reading in readings.items()
            for labels, value in reading.get(metric.name, ())
            for line in _series(metric, (worker, *labels), value)
        ]
        if lines:
            head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
            yield head + "".join(lines)


def _series(metric: Metric, values: Labels, value: Value) -> Iterator[str]:
    name = metric.name
    names = ("worker", *metric.labels)
    labels = ",".join(
        f'{each}="{told.translate(_ESCAPES)}"' for each, told in zip(names, values, strict=True)
    )
    if not isinstance(value, list):
        yield f"{name}{{{labels}}} {value}\n"
        return
    *counts, total = value
    for bound, count in zip((*metric.bounds, "+Inf"), accumulate(counts), strict=True):
        yield f'{name}_bucket{{{labels},le="{bound}"}} {count}\n'
    yield f"{name}_count{{{labels}}} {sum(counts)}\n"
    yield f"{name}_sum{{{labels}}} {total}\n"
