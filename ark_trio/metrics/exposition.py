"""Readings of workers as the text that Prometheus reads."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from attrs import frozen
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ark_trio.metrics.catalogue import CATALOGUE, Metric
from ark_trio.metrics.tally import Labels, Reading, Value

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def expose(readings: Mapping[str, Reading]) -> Iterator[bytes]:
    """Yield the exposition metric by metric, so that the caller can let others run in between."""
    for metric in CATALOGUE.values():
        found = [
            ((worker, *labels), value)
            for worker, reading in readings.items()
            for labels, value in reading.get(metric.name, ())
        ]
        if found:
            yield generate_latest(_One(_family(metric, found)))


@frozen(eq=False)
class _One(Collector):
    family: Family

    def collect(self) -> Iterable[Family]:
        """Return it."""
        return [self.family]


def _family(metric: Metric, found: Iterable[tuple[Labels, Value]]) -> Family:
    names = ("worker", *metric.labels)
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=names)
        bounds = [*map(floatToGoString, metric.bounds), "+Inf"]
        for labels, value in found:
            *counts, total = value if isinstance(value, list) else [value]
            histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=names)
    for labels, value in found:
        assert not isinstance(value, list)  # noqa: S101 (of a histogram only)
        family.add_metric(labels, value)
    return family
