"""The rules and the dashboard speak of metrics that there are."""

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ark_trio.metrics.catalogue import CATALOGUE
from tests.support.prometheus import ALERTS, MONITORING, RULES, engine_metrics

DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "ark-trio.json").read_text())
RECORDED = set(re.findall(r"^ +- record: (\S+)$", RULES, re.MULTILINE))
_NAME = re.compile(r"\b(?:ark|process|python|go)[_:][\w:]+")


def expressions(dashboard: Any = DASHBOARD) -> list[str]:
    """Every query of the dashboard."""
    panels = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    variables = [
        each["query"]["query"]
        for each in dashboard["templating"]["list"]
        if isinstance(each["query"], dict)
    ]
    return [*panels, *variables, *(each["expr"] for each in dashboard["annotations"]["list"])]


def exposed() -> set[str]:
    """Every name that /metrics of the gateway may show."""
    parts = ("_bucket", "_count", "_sum")
    return {
        name
        for metric in CATALOGUE.values()
        for name in (
            [metric.name + part for part in parts] if metric.kind == "histogram" else [metric.name]
        )
    }


def exposed_by_engines() -> set[str]:
    """Every name that /metrics of an engine shows."""
    families = text_string_to_metric_families(engine_metrics().decode())
    return {sample.name for family in families for sample in family.samples}


def test_the_rules_use_only_metrics_that_there_are():
    expressions_alone = re.sub(
        r"^ +(summary|description|- record):.*$", "", RULES, flags=re.MULTILINE
    )
    used = set(_NAME.findall(expressions_alone))
    assert used
    assert used <= exposed() | RECORDED, used - exposed() - RECORDED
    assert len(ALERTS) == len(set(ALERTS)) == RULES.count("- alert:") == RULES.count("severity:")


def test_the_dashboard_uses_only_metrics_that_there_are_and_nearly_all_of_them():
    engines = [each for each in expressions() if 'job="ark-engines"' in each]
    used = {name for each in engines for name in _NAME.findall(each)}
    assert used <= exposed_by_engines(), used - exposed_by_engines()
    told = {name for name in exposed_by_engines() if name.startswith("ark_engine_")}
    # A rate is shown, not what it is taken of, and the build is the gateway's.
    assert {name for name in told - used if "tokens" not in name and "_seconds_" not in name} == {
        "ark_engine_info"
    }
    used = {name for each in expressions() if each not in engines for name in _NAME.findall(each)}
    assert used <= exposed() | RECORDED, used - exposed() - RECORDED
    shown = {name.removesuffix("_bucket").removesuffix("_sum") for name in used}
    assert set(CATALOGUE) - shown <= {"ark_max_requests_running", "process_start_time_seconds"}


def test_the_dashboards_panels_have_ids_of_their_own_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
