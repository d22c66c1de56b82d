"""The text that Prometheus scrapes from an engine."""

from prometheus_client.parser import text_string_to_metric_families

from ark_trio.engine.exposition import exposition
from ark_trio.engine.ledger import Ledger
from ark_trio.engine.llama.gauges import Gauges, Transferred


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def test_everything_that_pull_metrics_tells_has_a_series_in_seconds_and_bytes():
    gauges = Gauges()
    gauges.prompt(100, 250.0)
    gauges.completion(40, 500.0)
    gauges.moved(Transferred(bytes=1000, ms=20.0))
    gauges.moved(Transferred(bytes=500, ms=10.0))
    load = {"slots": 4, "busy": 3, "queued": 2}
    told = samples(exposition("decoder", {**load, **Ledger().totals(), **gauges.metrics()}))
    expected = {
        "slots": 4,
        "slots_busy": 3,
        "queued": 2,
        "prompt_tokens_total": 100,
        "prefill_seconds_total": 0.25,
        "completion_tokens_total": 40,
        "decode_seconds_total": 0.5,
        "prefill_tokens_per_second": 100,
        "decode_tokens_per_second": 40,
        "kv_bytes_total": 1500,
        "kv_transfer_seconds_count": 2,
        "kv_transfer_seconds_sum": 0.03,
    }
    assert {name: told[f"ark_engine_{name}"] for name in expected} == expected
    assert told["ark_engine_calls_total|finished"] == 0
    assert told["process_resident_memory_bytes"] > 0
    assert told["python_gc_collections_total|0"] >= 0


def test_what_an_engine_does_not_tell_has_no_series():
    told = samples(exposition("decoder", {"slots": 1, "busy": 0, "queued": 0}))
    assert told["ark_engine_slots"] == 1
    assert not any("kv_" in name or "prompt" in name for name in told)
