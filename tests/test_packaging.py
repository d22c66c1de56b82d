"""The wheel is whole: installed in an empty environment it runs the gateway."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest

from tests.support.processes import engine, free_port, is_ready, wait_until

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def run(*command: object, cwd: Path | None = None) -> None:
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_wheel_runs_the_gateway_in_an_empty_environment(tmp_path: Path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = ZipFile(wheel).namelist()
    assert {"ark_trio/proto/ark.proto", "ark_wire/ark_pb2.py", "ark_wire/inference.py"} <= set(
        names
    )
    assert not any(name.startswith(("generated", "tests")) for name in names)

    run("/usr/bin/python3", "-m", "venv", tmp_path / "venv")
    pip = [tmp_path / "venv/bin/pip", "install", "--quiet", "--no-deps"]
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock")
    run(*pip, wheel)
    run(tmp_path / "venv/bin/pip", "check")

    port = free_port()
    with engine("decoder", "--served-names", "echo") as decoder:
        flags = ["--bind", f"127.0.0.1:{port}", "--decoders", f"127.0.0.1:{decoder.port}"]
        with subprocess.Popen(
            [tmp_path / "venv/bin/ark-trio", "proxy", *flags], cwd=tmp_path
        ) as proxy:
            try:
                wait_until(lambda: is_ready(port), what="the gateway")
                models = httpx2.get(f"http://127.0.0.1:{port}/v1/models").json()
                assert [model["id"] for model in models["data"]] == ["echo"]
            finally:
                proxy.terminate()
            assert proxy.wait(5) == 0
