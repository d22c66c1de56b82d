"""Each alert by itself, as promtool plays it minute by minute: when it fires, for what it does not, and what it then says."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from tests.support.prometheus import ALERTS, MONITORING, RULES

pytestmark = pytest.mark.prometheus

RULE = re.compile(
    r"^ +- alert: (\w+)$.*?(?:^ +for: (\d+)m$.*?)?^ +labels: {severity: (\w+)}$.*?^ +description: \"(.*?)\"$",
    re.MULTILINE | re.DOTALL,
)
KNOWN = {
    name: (int(minutes or 0), severity, description)
    for name, minutes, severity, description in RULE.findall(RULES)
}
"""Of each alert: how many minutes it waits before it fires, how grave it is, what to do."""
AT = 'job="ark",instance="a:1"'
PLAYED_MIN = 40
"""More than any alert waits."""


def still(value: float) -> str:
    """A gauge that stays so."""
    return f"{value}+0x{PLAYED_MIN}"


def growing(per_min: float) -> str:
    """A counter that grows by so much a minute."""
    return f"0+{per_min}x{PLAYED_MIN}"


def slow(metric: str, labels: str, within: str, beyond: str, slow_per_min: int) -> dict[str, str]:
    """A histogram: of 100 a minute so many fall into the bucket above `within`."""
    return {
        f'{metric}_bucket{{{AT},{labels},le="{within}"}}': growing(100 - slow_per_min),
        f'{metric}_bucket{{{AT},{labels},le="{beyond}"}}': growing(100),
        f'{metric}_bucket{{{AT},{labels},le="+Inf"}}': growing(100),
    }


def ended(outcome: str, per_min: float, model: str = "m") -> dict[str, str]:
    labels = f'{AT},endpoint="/chat/completions",model_name="{model}",outcome="{outcome}"'
    return {f"ark_requests_total{{{labels}}}": growing(per_min)}


def left(phase: str, per_min: float) -> dict[str, str]:
    labels = f'{AT},phase="{phase}",outcome="client_gone"'
    return {f"ark_client_disconnects_total{{{labels}}}": growing(per_min)}


def gauges(**values: float) -> dict[str, str]:
    """Of one worker."""
    return {f'{name}{{{AT},worker="1"}}': still(value) for name, value in values.items()}


def decoder(**values: float) -> dict[str, str]:
    return {
        f'ark_decoder_{name}{{{AT},worker="1",decoder="d:1"}}': still(value)
        for name, value in values.items()
    }


@frozen(kw_only=True)
class Case:
    """What an alert sees."""

    fault: dict[str, str]
    calm: tuple[dict[str, str], ...]
    """What looks like it, or is just within what is borne."""
    says: str
    labels: dict[str, str] = field(factory=dict)
    """Beside job and instance."""
    seen_min: int = 0
    """When the fault is seen first: a rate takes two samples."""


FIRST, BETWEEN = "ark_time_to_first_token_seconds", "ark_inter_token_latency_seconds"
LAG = "ark_event_loop_lag_seconds"
MODEL = {"model_name": "m"}
CASES = {
    "ArkGatewayDown": Case(
        fault={f"up{{{AT}}}": still(0)},
        calm=({f"up{{{AT}}}": still(1)}, {'up{job="another",instance="a:1"}': still(0)}),
        says="a:1 does not answer",
    ),
    "ArkNoReadyDecoder": Case(
        fault=gauges(ark_ready=0, ark_draining=0),
        calm=(gauges(ark_ready=1, ark_draining=0), gauges(ark_ready=0, ark_draining=1)),
        says="a:1 has no ready decoder",
    ),
    "ArkDecoderAway": Case(
        fault=decoder(ready=0, ejected=0),
        calm=(decoder(ready=1, ejected=0), decoder(ready=0, ejected=1)),
        labels={"decoder": "d:1"},
        says="Decoder d:1 takes no requests of a:1",
    ),
    "ArkDecoderEjected": Case(
        fault={
            f'ark_decoder_ejections_total{{{AT},worker="1",decoder="d:1"}}': f"0 1+0x{PLAYED_MIN}"
        },
        calm=({f'ark_decoder_ejections_total{{{AT},worker="1",decoder="d:1"}}': still(7)},),
        labels={"decoder": "d:1"},
        seen_min=1,
        says="Decoder d:1 was ejected",
    ),
    "ArkErrorRatioHigh": Case(
        fault=ended("completed", 90) | ended("bad_backend", 10),
        calm=(
            ended("completed", 96) | ended("bad_backend", 4),
            ended("completed", 50) | ended("invalid_request", 25) | ended("client_gone", 25),
            ended("completed", 50) | ended("unavailable", 50, model=""),
        ),
        seen_min=1,
        says="10% of requests to a:1 fail",
    ),
    "ArkFirstTokenSlow": Case(
        fault=slow(FIRST, 'model_name="m"', "10.0", "20.0", 10),
        calm=(slow(FIRST, 'model_name="m"', "10.0", "20.0", 0),),
        labels=MODEL,
        seen_min=1,
        says="First tokens of m take 19s",
    ),
    "ArkBetweenTokensSlow": Case(
        fault=slow(BETWEEN, 'model_name="m"', "1.0", "2.5", 10),
        calm=(slow(BETWEEN, 'model_name="m"', "1.0", "2.5", 0),),
        labels=MODEL,
        seen_min=1,
        says="Tokens of m come 2.35s apart",
    ),
    "ArkQueueFull": Case(
        fault=gauges(ark_num_requests_waiting=9, ark_max_requests_waiting=10),
        calm=(
            gauges(ark_num_requests_waiting=8, ark_max_requests_waiting=10),
            gauges(ark_num_requests_waiting=0, ark_max_requests_waiting=0),
        ),
        says="The line before a:1 is 90% full",
    ),
    "ArkRequestsRefused": Case(
        fault=ended("overloaded", 120),
        calm=(ended("overloaded", 6), ended("rate_limited", 60)),
        seen_min=1,
        says="a:1 refuses 2 requests a second",
    ),
    "ArkRetriesHigh": Case(
        fault=ended("completed", 100) | {f"ark_retries_total{{{AT}}}": growing(20)},
        calm=(ended("completed", 100) | {f"ark_retries_total{{{AT}}}": growing(10)},),
        seen_min=1,
        says="20% of requests to a:1 are tried again elsewhere",
    ),
    "ArkClientsLeaveEarly": Case(
        fault=ended("completed", 60) | ended("client_gone", 40) | left("prefill", 40),
        calm=(
            ended("completed", 80) | ended("client_gone", 20) | left("queued", 20),
            ended("completed", 60) | ended("client_gone", 40) | left("decode", 40),
        ),
        seen_min=1,
        says="40% of clients leave a:1 before their first token",
    ),
    "ArkEventLoopLag": Case(
        fault=slow(LAG, 'worker="2"', "0.1", "0.25", 10),
        calm=(slow(LAG, 'worker="2"', "0.1", "0.25", 0),),
        labels={"worker": "2"},
        seen_min=1,
        says="Worker 2 of a:1 is 235ms late",
    ),
    "ArkWorkerSilent": Case(
        fault=gauges(ark_worker_up=0),
        calm=(gauges(ark_worker_up=1),),
        labels={"worker": "1"},
        says="Worker 1 of a:1 does not answer the others",
    ),
    "ArkDrainStuck": Case(
        fault=gauges(ark_draining=1),
        calm=(gauges(ark_draining=0),),
        says="a:1 has been stopping for 3 minutes",
    ),
    "ArkDescriptorsShort": Case(
        fault=gauges(process_open_fds=900, process_max_fds=1000),
        calm=(
            gauges(process_open_fds=800, process_max_fds=1000),
            {'process_open_fds{job="x"}': still(9), 'process_max_fds{job="x"}': still(9)},
        ),
        labels={"worker": "1"},
        says="Worker 1 of a:1 uses 90% of its descriptors",
    ),
}


def test_every_alert_has_a_case():
    assert set(CASES) == set(ALERTS) == set(KNOWN)


def play(
    folder: Path, alert: str, series: dict[str, str], expected: dict[int, list[dict[str, Any]]]
) -> None:
    """Have promtool play it: what is expected to fire, by minute."""
    played = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": alerts}
            for minute, alerts in expected.items()
        ],
    }
    test = {
        "rule_files": [str(MONITORING / "rules.yml")],
        "evaluation_interval": "1m",
        # Else by chance, and then alerts see what was recorded a minute ago.
        "group_eval_order": ["ark-recordings", "ark-alerts"],
        "tests": [played],
    }
    file = folder / "test.yml"
    file.write_text(json.dumps(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_it_fires_once_its_fault_has_lasted_and_says_what_is_wrong(tmp_path: Path, alert: str):
    case, (waits_min, severity, description) = CASES[alert], KNOWN[alert]
    firing = {
        "exp_labels": {"job": "ark", "instance": "a:1", **case.labels, "severity": severity},
        "exp_annotations": {"summary": case.says, "description": description},
    }
    begins = case.seen_min + waits_min
    expected: dict[int, list[dict[str, Any]]] = {minute: [] for minute in range(begins)}
    play(tmp_path, alert, case.fault, {**expected, begins: [firing]})


@pytest.mark.parametrize("alert", ALERTS)
def test_it_does_not_fire_for_what_only_looks_like_it(tmp_path: Path, alert: str):
    for series in CASES[alert].calm:
        play(tmp_path, alert, series, {minute: [] for minute in range(0, PLAYED_MIN, 5)})
