"""The Dockerfile and the compose files, before anything is built from them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_engine import install_tools
from tests.support.installed import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

CPU = ["-f", "docker/compose.yaml"]
GPU = [*CPU, "-f", "docker/compose.gpu.yaml"]


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def config(*files: str) -> dict[str, Any]:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "DOCKER_CONFIG": str(install_tools() / "config")}
    done = subprocess.run(
        ["docker", "compose", *files, "config", "--format", "json"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("files", [[], CPU, GPU], ids=["root", "cpu", "gpu"])
def test_each_combination_is_valid_and_publishes_the_gateway_alone_and_on_loopback(files):
    services = config(*files)["services"]
    assert set(services) == {"prefiller", "decoder", "api-server"}
    published = {name: service.get("ports") for name, service in services.items()}
    (port,) = published.pop("api-server")
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "18080", 18080)
    assert set(published.values()) == {None}


@pytest.mark.parametrize("files", [[], CPU], ids=["root", "cpu"])
def test_every_container_is_bounded_and_can_do_nothing_but_serve(files):
    for name, service in config(*files)["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert "max-size" in service["logging"]["options"], name


def test_a_stop_may_take_longer_than_settling_and_drain():
    from ark_trio.config import Settings

    limits = Settings().limits
    for service in config()["services"].values():
        assert service["stop_grace_period"] == "1m15s"
    assert limits.settle_s + limits.drain_s + 5 < 75


def test_the_gpu_files_give_the_private_engine_what_it_needs():
    services = config(*GPU)["services"]
    image = "iaas-gpu-cn-beijing.cr.volces.com/serving/xllm:private_xllm_th24_cu124_xperf_0609"
    starts = {"prefiller": "2m0s", "decoder": "3m0s"}
    for role, start in starts.items():
        service = services[role]
        assert service["image"] == image
        assert "build" not in service
        assert service["network_mode"] == "host"
        assert int(service["shm_size"]) == 128 * 2**30
        assert service["ulimits"] == {"memlock": -1, "nofile": 1048576}
        (gpus,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert gpus == {"capabilities": ["gpu"], "driver": "nvidia", "count": -1}
        assert service["healthcheck"]["start_period"] == start
        assert service["entrypoint"] == ["sh", f"/app/{role}-setup"]
        assert service["secrets"] == [{"source": "license", "target": "/app/xllm/license.lic"}]
        short = {"prefiller": "prefill", "decoder": "decode"}[role]
        assert {volume["target"] for volume in service["volumes"]} == {
            "/data/models/DeepSeek-R1-ENC-xLLM",
            "/data/models/DeepSeek-R1-DRAFT-ENC-xLLM",
            f"/app/xllm/{short}_enc.env",
            "/var/run/nvidia-topologyd",
            f"/app/{role}-setup",
        }
        assert "privileged" not in service


@pytest.mark.parametrize("role", ["prefiller", "decoder"])
def test_an_entry_point_is_plain_sh(role):
    script = ROOT / "docker" / f"{role}-setup"
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["dash", "-n", script], check=True)


def test_with_monitoring_nothing_more_than_its_pages_is_published_and_on_loopback():
    services = config(*CPU, "-f", "docker/compose.monitoring.yaml")["services"]
    published = {
        name: [(port["host_ip"], port["published"]) for port in service.get("ports", [])]
        for name, service in services.items()
    }
    assert published == {
        "prefiller": [],
        "decoder": [],
        "api-server": [("127.0.0.1", "18080")],
        "prometheus": [("127.0.0.1", "9090")],
        "grafana": [("127.0.0.1", "3000")],
    }
    # Prometheus asks at the door that the gateway opens for it, and finds all that is mounted.
    bind = services["api-server"]["environment"]["ARK_ADMIN_BIND"]
    scraped = (ROOT / "docker/monitoring/prometheus.yml").read_text()
    assert f"api-server:{bind.rpartition(':')[2]}" in scraped
    for role in ("prefiller", "decoder"):
        bind = services[role]["environment"]["ARK_ENGINE_METRICS_BIND"]
        assert f"{role}:{bind.rpartition(':')[2]}" in scraped
    for name in ("prometheus", "grafana"):
        service = services[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        for mount in service["volumes"]:
            assert mount["type"] == "volume" or Path(mount["source"]).exists(), mount
