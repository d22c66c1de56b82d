"""Debian's own Prometheus, scraping gateways of ours every two seconds, with our rules in a hurry."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import trio
from attrs import define, field

from ark_trio.engine.exposition import exposition
from ark_trio.engine.ledger import Ledger
from ark_trio.engine.llama.gauges import Gauges, Transferred
from tests.support.processes import Process, free_port, running, wait_until

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
WINDOW_S = 12
"""What the rules' windows become."""


@define(eq=False)
class Prometheus(Process):
    """A running one."""

    port: int = 0
    targets: Path = Path()
    _known: list[dict[str, Any]] = field(factory=list)

    def watch(self, target: str, job: str = "ark") -> str:
        """Scrape `target`, a host:port, from now on, and wait until that has worked once."""
        self._known.append({"targets": [target], "labels": {"job": job}})
        staged = self.targets.with_suffix(".new")
        staged.write_text(json.dumps(self._known))
        staged.rename(self.targets)
        wait_until(lambda: self.value(f'up{{instance="{target}"}}') == 1, 10, f"scraping {target}")
        return target

    def query(self, expression: str) -> list[Any]:
        """Evaluate an expression now."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query"
        answer = httpx2.get(url, params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[Any] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The value of the only series, if there is one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def fired(self) -> dict[str, set[str]]:
        """The alerts that have fired so far, and for which instances."""
        found: dict[str, set[str]] = {}
        for series in self.query('count_over_time(ALERTS{alertstate="firing"}[1h])'):
            labels = series["metric"]
            found.setdefault(labels["alertname"], set()).add(labels["instance"])
        return found

    def rule_errors(self) -> list[str]:
        """What went wrong in evaluating the rules."""
        url = f"http://127.0.0.1:{self.port}/api/v1/rules"
        groups = httpx2.get(url, timeout=10).json()["data"]["groups"]
        return [rule["lastError"] for g in groups for rule in g["rules"] if rule.get("lastError")]


RULES = (MONITORING / "rules.yml").read_text()
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)


def engine_metrics() -> bytes:
    """What an engine that tells everything serves at /metrics."""

    async def work() -> dict[str, float]:
        gauges = Gauges()
        gauges.prompt(100, 250.0)
        gauges.completion(40, 500.0)
        gauges.moved(Transferred(bytes=1000, ms=20.0))
        return {"slots": 4, "busy": 3, "queued": 2, **Ledger().totals(), **gauges.metrics()}

    return exposition("decoder", trio.run(work))


@contextmanager
def scripted_engine() -> Iterator[str]:
    """Serve that; the host:port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = engine_metrics()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def hurried_rules() -> str:
    """Our rules with short windows and no patience. Thresholds stay."""
    text = re.sub(r"\[\d+m\]", f"[{WINDOW_S}s]", RULES)
    return re.sub(r"^( +for:) \d+m$", r"\1 0s", text, flags=re.MULTILINE)


@contextmanager
def open_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run it until the block ends."""
    program = shutil.which("prometheus")
    assert program, "Debian's package prometheus is missing: apt-get install prometheus"
    targets = folder / "targets.json"
    targets.write_text("[]")
    (folder / "rules.yml").write_text(hurried_rules())
    scrape = {
        "job_name": "ark",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    subprocess.run(
        ["promtool", "check", "config", folder / "prometheus.json"], check=True, capture_output=True
    )
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with running(command) as process:
        prometheus = Prometheus(process.popen, process.output, port, targets)
        wait_until(lambda: _ready(port), 20, "Prometheus")
        yield prometheus


def _ready(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False
