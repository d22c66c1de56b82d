"""Each alert, in a real Prometheus, fires under the fault that it is for, and none does where all is well.

One incident for all: several gateways, each with faults of its own, while one next to them serves on.
"""

import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from attrs import define, field

from tests.monitoring.test_files import expressions
from tests.support.keys import bearing, write_keys
from tests.support.processes import Served, engine, free_port, gateway, wait_until
from tests.support.prometheus import (
    ALERTS,
    MONITORING,
    Prometheus,
    open_prometheus,
    scripted_engine,
)
from tests.support.wire import chat, connected, post, read_until

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(240)]

FIRES_ON = {
    "ArkGatewayDown": "killed",
    "ArkNoReadyDecoder": "bereft",
    "ArkDecoderAway": "half",
    "ArkDecoderEjected": "half",
    "ArkErrorRatioHigh": "half",
    "ArkFirstTokenSlow": "half",
    "ArkBetweenTokensSlow": "half",
    "ArkRetriesHigh": "half",
    "ArkQueueFull": "crowded",
    "ArkRequestsRefused": "crowded",
    "ArkClientsLeaveEarly": "crowded",
    "ArkDescriptorsShort": "short",
    "ArkEventLoopLag": "stopped",
    "ArkWorkerSilent": "stopped",
    "ArkDrainStuck": "draining",
}
"""Each alert, and the gateway of the incident that has its fault."""
NOISE = {"ArkEventLoopLag"}
"""What a machine that is busy with all of this may really have, in windows of seconds."""


def ask(door: Served, content: str, *, stream: bool = True, timeout: float = 30) -> int:
    """Make one request, read its answer to the end and return its status; 0: the time was up."""
    body = json.loads(chat(content, stream=stream))
    with suppress(httpx2.TransportError):
        url = f"{door.url}/v1/chat/completions"
        return httpx2.post(url, json=body, headers=bearing("ann"), timeout=timeout).status_code
    return 0


@define(eq=False)
class Incident:
    """Gateways under faults, watched."""

    prometheus: Prometheus
    exits: ExitStack
    targets: dict[str, str] = field(factory=dict)
    """Of each gateway, by its name here."""
    crew: ThreadPoolExecutor = field(factory=lambda: ThreadPoolExecutor(32))
    over: bool = False

    def decoder(self) -> Served:
        return self.exits.enter_context(engine("decoder", "--served-names", "echo"))

    def gateway(self, name: str, *decoders: Served, **env: str) -> Served:
        """Start one with an admin's door, warm it up and have it watched."""
        port = free_port()
        settings = {"ARK_ADMIN_BIND": f"127.0.0.1:{port}", **env}
        door = self.exits.enter_context(
            gateway("proxy", [each.port for each in decoders], env=settings)
        )
        ask(door, "count=3")  # a series that begins with its first event has no rate
        self.targets[name] = self.prometheus.watch(f"127.0.0.1:{port}")
        return door

    def keep(self, work: Any, *args: Any, **kwargs: Any) -> None:
        """Do it again and again, in the background, until the incident is over."""

        def again() -> None:
            while not self.over:
                work(*args, **kwargs)
                time.sleep(0.2)

        self.crew.submit(again)


@contextmanager
def open_incident(prometheus: Prometheus) -> Iterator[Incident]:
    with ExitStack() as exits:
        incident = Incident(prometheus, exits)
        try:
            yield incident
        finally:
            incident.over = True
            incident.crew.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with open_prometheus(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture(scope="module")
def incident(
    prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Incident]:
    with open_incident(prometheus) as incident:
        keys = write_keys(tmp_path_factory.mktemp("keys") / "keys", ann={})
        well = incident.gateway("well", incident.decoder(), ARK_KEYS_FILE=str(keys))
        prometheus.watch(incident.exits.enter_context(scripted_engine()), "ark-engines")
        incident.keep(ask, well, "count=5 gap_s=0.05")
        time.sleep(3)
        assert set(prometheus.fired()) <= NOISE
        _break_half_a_fleet(incident)
        _take_all_decoders(incident)
        _crowd(incident)
        _take_its_descriptors(incident)
        _stop_a_worker(incident)
        _drain_without_end(incident)
        incident.gateway("killed", incident.decoder()).kill()
        yield incident


def _break_half_a_fleet(incident: Incident) -> None:
    """One of three decoders dies, the others fail requests, are slow to begin and slow to go on."""
    dying = incident.decoder()
    env = {"ARK_FLEET_POLICY": "round_robin", "ARK_EJECT_FAULTS": "3", "ARK_EJECT_S": "1"}
    door = incident.gateway("half", dying, incident.decoder(), incident.decoder(), **env)
    incident.keep(ask, door, "count=3 fail_at=0 status=INTERNAL")
    incident.keep(ask, door, "count=2 first_delay_s=11")
    incident.keep(ask, door, "count=5 gap_s=1.5")
    dying.kill()


def _take_all_decoders(incident: Incident) -> None:
    decoder = incident.decoder()
    incident.gateway("bereft", decoder)
    decoder.kill()


def _crowd(incident: Incident) -> None:
    """One place, a line of two, and more callers, who give up soon."""
    env = {"ARK_MAX_REQUESTS": "1", "ARK_MAX_WAITING": "2"}
    door = incident.gateway("crowded", incident.decoder(), **env)
    for _ in range(5):
        incident.keep(ask, door, "count=1 first_delay_s=4", timeout=2)


def _take_its_descriptors(incident: Incident) -> None:
    door = incident.gateway("short", incident.decoder())
    pid = door.popen.pid
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (int(open_now * 1.15), hard))


def _stop_a_worker(incident: Incident) -> None:
    """One of two hangs, and goes on now and again, so that it is not killed."""
    door = incident.gateway("stopped", incident.decoder(), ARK_WORKERS="2")
    worker = max(door.children())

    def hang_for_a_while() -> None:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
            time.sleep(9)
            os.kill(worker, signal.SIGCONT)
        time.sleep(1)

    incident.keep(hang_for_a_while)


def _drain_without_end(incident: Incident) -> None:
    door = incident.gateway("draining", incident.decoder())
    sock = incident.exits.enter_context(connected(door.port))
    sock.sendall(post(chat("count=100000 gap_s=0.05")))
    read_until(sock, b'"content":"')
    door.signal(signal.SIGTERM)


def test_every_alert_has_a_fault():
    assert set(ALERTS) == set(FIRES_ON)


@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_fires(incident: Incident, alert: str):
    target = incident.targets[FIRES_ON[alert]]
    wait_until(lambda: target in incident.prometheus.fired().get(alert, ()), 60, alert)


def test_nothing_fires_for_the_gateway_that_is_well(incident: Incident):
    fired = incident.prometheus.fired()
    assert fired
    of_it = {alert for alert, targets in fired.items() if incident.targets["well"] in targets}
    assert of_it <= NOISE
    assert incident.prometheus.rule_errors() == []


def test_every_query_of_the_dashboard_finds_something(incident: Incident):
    empty = []
    for expression in expressions():
        filled = expression.replace("$__rate_interval", "12s")
        filled = filled.replace("$instance", ".*").replace("$model", ".*").replace("[15m]", "[60s]")
        if values := re.fullmatch(r"label_values\((.*), \w+\)", filled):
            filled = values[1]
        if not incident.prometheus.query(filled):
            empty.append(expression)
    # Nobody has released a new build in between.
    assert [each for each in empty if "ark_build_info" not in each or "changes" not in each] == []


def test_promtool_finds_no_fault_in_what_is_shipped():
    for kind, name in (("config", "prometheus.yml"), ("rules", "rules.yml")):
        command = ["promtool", "check", kind, str(MONITORING / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
