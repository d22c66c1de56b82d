"""The text that Prometheus reads, read back by its own client's parser."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ark_trio.metrics.catalogue import CATALOGUE, FIRST_TOKEN, REQUESTS, catalogue_markdown
from ark_trio.metrics.exposition import expose
from ark_trio.metrics.tally import Tally

LABEL = st.text(st.characters(codec="utf-8"))


def read_back(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(LABEL, LABEL, st.integers(0, 2**53))
def test_a_label_is_read_back_whatever_is_in_it(model: str, outcome: str, count: int):
    tally = Tally()
    tally.count(REQUESTS, "/chat/completions", model, outcome, by=count)
    found = read_back("".join(expose({"1": tally.read()})))
    labels = {"worker": "1", "endpoint": "/chat/completions"}
    labels |= {"model_name": model, "outcome": outcome}
    assert found[REQUESTS.name, frozenset(labels.items())] == count


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_is_read_back_with_every_value_in_its_bucket(values: list[float]):
    tally = Tally()
    for value in values:
        tally.distribution(FIRST_TOKEN, "m").add(value)
    tally.distribution(FIRST_TOKEN, "m")
    found = read_back("".join(expose({"1": tally.read()})))
    for bound in FIRST_TOKEN.bounds:
        labels = {"worker": "1", "model_name": "m", "le": str(bound)}
        count = found[f"{FIRST_TOKEN.name}_bucket", frozenset(labels.items())]
        assert count == sum(value <= bound for value in values)
    rest = frozenset({"worker": "1", "model_name": "m"}.items())
    assert found[f"{FIRST_TOKEN.name}_count", rest] == len(values)
    assert abs(found[f"{FIRST_TOKEN.name}_sum", rest] - sum(values)) <= 1e-9 * sum(values)


def test_workers_stand_under_one_heading():
    text = "".join(expose({"1": Tally().read(), "2": Tally().read()}))
    for metric in CATALOGUE.values():
        assert text.count(f"# TYPE {metric.name} ") <= 1
    assert 'worker="2"' in text


def test_the_page_lists_the_metrics_as_they_are():
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert catalogue_markdown() in page.read_text(encoding="utf-8")
