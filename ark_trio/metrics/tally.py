"""Where counts are kept: plain numbers in one process, without locks, since one thread writes and reads them.

A `Reading` is what all of it comes to at one moment, as plain JSON values, so that workers can tell one another.
"""

from bisect import bisect_left

from attrs import define, field

from ark_trio.metrics.catalogue import CATALOGUE, Metric

Labels = tuple[str, ...]
Value = float | list[float]
"""A number; of a histogram what each bucket counted by itself, the last beyond all bounds, and then the sum."""
Reading = dict[str, list[tuple[Labels, Value]]]
"""By the metric's name: the values of its labels, and its value."""


class Distribution:
    """How often values fell between the bounds of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@define(eq=False)
class Tally:
    """The counters and histograms of one process. Gauges are not kept but looked at when asked for."""

    _counters: dict[str, dict[Labels, float]] = field(factory=dict)
    _histograms: dict[str, dict[Labels, Distribution]] = field(factory=dict)

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        values = self._counters.setdefault(metric.name, {})
        values[labels] = values.get(labels, 0) + by

    def distribution(self, metric: Metric, *labels: str) -> Distribution:
        """Return the histogram of these labels, to add to."""
        found = self._histograms.setdefault(metric.name, {})
        if labels not in found:
            found[labels] = Distribution(metric.bounds)
        return found[labels]

    def total(self, metric: Metric) -> float:
        """Return a counter's sum over all labels."""
        return sum(self._counters.get(metric.name, {}).values())

    def read(self) -> Reading:
        """Return what was counted. What has no labels is there from the first, with 0, as rates want it."""
        for metric in CATALOGUE.values():
            if metric.kind == "counter" and not metric.labels:
                self.count(metric, by=0)
            elif metric.kind == "histogram" and not metric.labels:
                self.distribution(metric)
        found: Reading = {name: list(each.items()) for name, each in self._counters.items()}
        for name, spread in self._histograms.items():
            found[name] = [(labels, [*one.counts, one.total]) for labels, one in spread.items()]
        return found
