"""An engine's numbers as Prometheus reads them: what PullMetrics tells, in seconds and bytes, and what the process uses."""

from collections.abc import Iterator, Mapping

from attrs import frozen
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from ark_trio import __version__
from ark_trio.engine.ledger import ENDINGS

_GAUGES = {
    "slots": ("slots", "Requests that are generated at once"),
    "busy": ("slots_busy", "Slots in use, or still computing for a request that has ended"),
    "queued": ("queued", "Requests that wait for a slot"),
    "prefill_tokens_per_s": (
        "prefill_tokens_per_second",
        "Prompt tokens computed a second, over the last minute",
    ),
    "decode_tokens_per_s": (
        "decode_tokens_per_second",
        "Tokens generated a second, over the last minute",
    ),
}
_MS = 1e-3
_COUNTERS = {
    "prompt_tokens_total": ("prompt_tokens", "Prompt tokens computed", 1),
    "prefill_ms_total": ("prefill_seconds", "Time in which prompt tokens were computed", _MS),
    "completion_tokens_total": ("completion_tokens", "Tokens generated", 1),
    "decode_ms_total": (
        "decode_seconds",
        "Time in which tokens were generated, request by request",
        _MS,
    ),
    "kv_bytes_total": ("kv_bytes", "Bytes of KV states sent (prefiller) or received (decoder)", 1),
}


def exposition(role: str, metrics: Mapping[str, float]) -> bytes:
    """Return the text of one scrape. `metrics`: PullMetrics' outputs; what an engine does not tell has no series."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(role, metrics))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


@frozen(eq=False)
class _Snapshot(Collector):
    role: str
    metrics: Mapping[str, float]

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "ark_engine", "The engine", value={"role": self.role, "version": __version__}
        )
        for key, (name, told) in _GAUGES.items():
            if key in self.metrics:
                yield GaugeMetricFamily(f"ark_engine_{name}", told, value=self.metrics[key])
        for key, (name, told, unit) in _COUNTERS.items():
            if key in self.metrics:
                value = self.metrics[key] * unit
                yield CounterMetricFamily(f"ark_engine_{name}", told, value=value)
        if "kv_transfers_total" in self.metrics:
            yield SummaryMetricFamily(
                "ark_engine_kv_transfer_seconds",
                "From the end of a KV state's computation to its place",
                count_value=int(self.metrics["kv_transfers_total"]),
                sum_value=self.metrics["kv_transfer_ms_total"] * _MS,
            )
        calls = CounterMetricFamily(
            "ark_engine_calls", "Calls that have ended, by how", labels=["outcome"]
        )
        for ending in ENDINGS:
            calls.add_metric([ending], self.metrics.get(f"calls_{ending}_total", 0.0))
        yield calls
