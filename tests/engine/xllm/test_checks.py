"""What is looked at before the private engine starts, fault by fault."""

import os
import resource
import socket
from pathlib import Path

import pytest
from attrs import evolve

from ark_trio.config import Address, Settings, XllmSettings
from ark_trio.engine.xllm.checks import Fault, check_host, place_license
from tests.support.private_engine import lay_out
from tests.support.processes import free_port


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host with everything in its place, below a folder."""
    lay_out(tmp_path)
    (tmp_path / "app/xllm/license.lic").write_text("a licence")
    monkeypatch.setenv("PATH", f"{tmp_path}/usr/bin:{os.environ['PATH']}")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    xllm = XllmSettings(
        home=tmp_path / "app/xllm",
        model_dir=tmp_path / "data/models/DeepSeek-R1-ENC-xLLM",
        draft_model_dir=tmp_path / "data/models/DeepSeek-R1-DRAFT-ENC-xLLM",
        interface="lo",
        min_shm_bytes=0,
        driver_port=free_port(),
        kv_port=free_port(),
    )
    return Settings(xllm=xllm, grpc_bind=Address(host="0.0.0.0", port=free_port()))


def faults(settings: Settings, role="decoder", **changed) -> list[str]:
    return check_host(evolve(settings, xllm=evolve(settings.xllm, **changed)), role)[1]


@pytest.mark.parametrize("role", ["prefiller", "decoder"])
def test_a_host_with_everything_has_no_faults(settings, role):
    host, found = check_host(settings, role)
    assert found == []
    assert (host.gpus, host.local_addr) == (8, "127.0.0.1")


def test_fewer_gpus_may_be_used_but_not_more(settings):
    host, found = check_host(evolve(settings, xllm=evolve(settings.xllm, gpus=2)), "prefiller")
    assert (host.gpus, found) == (2, [])
    assert faults(settings, gpus=9) == ["GPUs: 9 are wanted (xllm.gpus), nvidia-smi lists 8"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\n", "GPUs: nvidia-smi lists none"),
        ("#!/bin/sh\necho 'no driver' >&2; exit 9\n", "GPUs: nvidia-smi failed: no driver"),
        ("not a program", "GPUs: nvidia-smi can't be run; is the driver installed?"),
    ],
)
def test_what_nvidia_smi_says_is_told(settings, tmp_path, script, said):
    (tmp_path / "usr/bin/nvidia-smi").write_text(script)
    assert faults(settings) == [said]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("app/xllm/private_xllm.bin", "engine: "),
        ("app/xllm/decode_enc.env", "environment file: "),
        ("app/xllm/license.lic", "licence: there is none in "),
        ("data/models/DeepSeek-R1-ENC-xLLM/saved_model/gemm_config", "tuner configuration: "),
    ],
)
def test_a_missing_file_is_one_fault_that_names_it(settings, tmp_path, gone, said):
    (tmp_path / gone).unlink()
    (found,) = faults(settings)
    assert found.startswith(said)
    assert str(tmp_path / gone) in found


@pytest.mark.parametrize("placeholder", ["", "\n", "none", "none\n"])
def test_a_placeholder_is_no_licence(settings, tmp_path, placeholder):
    (tmp_path / "app/xllm/license.lic").write_text(placeholder)
    assert faults(settings)[0].startswith("licence: there is none")


def test_a_binary_that_may_not_be_run_is_a_fault(settings, tmp_path):
    (tmp_path / "app/xllm/private_xllm.bin").chmod(0o644)
    assert faults(settings)[0].startswith("engine: ")


@pytest.mark.parametrize("key", ["grpc_bind", "xllm.driver_port", "xllm.kv_port"])
def test_a_taken_port_is_named_with_its_setting(settings, key):
    port = settings.grpc_bind.port if key == "grpc_bind" else getattr(settings.xllm, key[5:])
    with socket.create_server(("0.0.0.0", port)):
        found = faults(settings)
        assert found == [f"port: {port} can't be listened on ({key}): Address already in use"]
        if key != "grpc_bind":
            assert faults(settings, role="prefiller") == []


def test_limits_that_are_too_low_are_named(settings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    assert faults(settings) == [
        "memlock: the limit is 4096 bytes; no limit is needed (LimitMEMLOCK=)",
        "nofile: the limit is 4096; at least 65536 is needed (LimitNOFILE=)",
    ]
    assert faults(settings, min_memlock_bytes=4096, min_open_files=4096) == []
    assert "at least 8192 is needed" in faults(settings, min_memlock_bytes=8192)[0]


def test_shared_memory_that_is_too_small_is_a_fault(settings):
    (found,) = faults(settings, min_shm_bytes=2**50)
    assert found.endswith("1.04858e+06 GiB is needed (xllm.min_shm_bytes)")


def test_an_interface_without_an_address_is_named_unless_the_address_is_set(settings):
    (found,) = faults(settings, interface="nope0")
    assert "nope0 has no IPv4 address" in found
    host, rest = check_host(
        evolve(settings, xllm=evolve(settings.xllm, interface="nope0", local_addr="10.0.0.9")),
        "decoder",
    )
    assert (host.local_addr, rest) == ("10.0.0.9", [])


def test_a_licence_from_elsewhere_is_linked_to_its_place(settings, tmp_path):
    place = tmp_path / "app/xllm/license.lic"
    place.unlink()
    mine, newer = tmp_path / "mine.lic", tmp_path / "newer.lic"
    for file in (mine, newer):
        file.write_text(file.name)
        place_license(evolve(settings.xllm, license=file))
        assert place.read_text() == file.name
    assert [path.name for path in place.parent.glob("*lic*")] == ["license.lic"]


def test_a_licence_that_is_another_one_is_left_alone(settings, tmp_path):
    (tmp_path / "mine.lic").write_text("mine")
    with pytest.raises(Fault, match="is another file than"):
        place_license(evolve(settings.xllm, license=tmp_path / "mine.lic"))
    assert (tmp_path / "app/xllm/license.lic").read_text() == "a licence"
