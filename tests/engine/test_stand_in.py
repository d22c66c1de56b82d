"""Our CPU engine under the private engine's own command line."""

import re
from pathlib import Path

import pytest
import trio

from ark_trio.engine.stand_in import own_arguments, stands_in
from ark_trio.errors import ConfigError
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import open_channel
from tests.support.llama import ask, chat, status
from tests.support.processes import free_port, listens, running, wait_until

PREFILL = ("--driver-type", "splitwise_prefill")
DECODE = ("--driver-type=splitwise_decode",)


def test_it_is_known_by_its_driver_type():
    assert stands_in(PREFILL)
    assert stands_in(DECODE)
    assert not stands_in(["decoder", "--engine", "llama"])


def test_the_launch_of_a_prefiller_is_understood(tmp_path: Path):
    (tmp_path / "b.gguf").touch()
    (tmp_path / "a.gguf").touch()
    argv = [*PREFILL, "--port", "62005", "--model-dir", str(tmp_path), "--num-server-procs", "4"]
    assert own_arguments(argv, {"XLLM_MODEL_NAME": "deepseek-r1"}) == [
        "prefiller",
        "--engine=llama",
        "--grpc-bind=0.0.0.0:62005",
        f"--model={tmp_path / 'a.gguf'}",
        "--served-names=deepseek-r1,deepseek-r1-0528",
        "--grpc-also-bind=0.0.0.0:62001",
    ]


def test_the_launch_of_a_decoder_is_understood(tmp_path: Path):
    env = tmp_path / "decode.env"
    env.write_bytes(b"# x\nexport PREFILL_ADDRS='10.0.0.1:62001,10.0.0.2:62001'\n\xff\xfe=1\nA b\n")
    argv = [*DECODE, "--env-path", str(env), "--model-dir", "/no/such/folder"]
    assert own_arguments(argv, {}) == [
        "decoder",
        "--engine=llama",
        "--grpc-bind=0.0.0.0:62000",
        "--served-names=deepseek-r1-0528",
        "--prefiller-wait-s=0",
        "--prefillers=10.0.0.1:62001,10.0.0.2:62001",
    ]
    settings = {"PREFILL_ADDRS": "10.0.0.3:1", "ARK_SERVED_NAMES": "x", "ARK_MODEL": "y"}
    assert own_arguments(argv, settings)[3:] == ["--prefiller-wait-s=0", "--prefillers=10.0.0.3:1"]


def test_a_prefiller_whose_ports_are_one_listens_once():
    argv = [*PREFILL, "--port=62001"]
    assert not [word for word in own_arguments(argv, {}) if "also" in word]


def test_an_environment_file_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="--env-path"):
        own_arguments([*DECODE, "--env-path", "/no/such/file"], {})


@pytest.mark.parametrize("argv", [[*DECODE, "--gpus", "8"], ["--driver-type=both"]])
def test_a_flag_that_the_private_engine_does_not_have_is_one_line(argv, capsys):
    with pytest.raises(SystemExit) as raised:
        own_arguments(argv, {})
    assert raised.value.code == 2
    assert re.fullmatch(r"ark-trio: .*\n", capsys.readouterr().err)


@pytest.mark.model
@pytest.mark.timeout(120)
async def test_a_deployment_runs_with_it_in_the_private_engines_place(tmp_path: Path):
    ports = {name: free_port() for name in ("prefill", "driver", "decode")}
    (tmp_path / "role.env").write_text("XLLM_PARALLEL_TP_SIZE=8\n")
    launch = ["ark-trio", "--model-dir", str(tmp_path), "--env-path", str(tmp_path / "role.env")]
    launch += ["--num-server-procs", "4"]
    prefill = [*launch, *PREFILL, "--port", str(ports["prefill"])]
    decode = [*launch, *DECODE, "--port", str(ports["decode"])]
    small = {"ARK_SLOTS": "2", "ARK_CONTEXT_TOKENS": "1024", "ARK_ENGINE": "xllm"}
    with (
        running(prefill, {**small, "SPLITWISE_DRIVER_PORT": str(ports["driver"])}),
        running(decode, {**small, "PREFILL_ADDRS": f"127.0.0.1:{ports['driver']}"}),
    ):
        for port in ports.values():
            await trio.to_thread.run_sync(wait_until, lambda port=port: listens(port))
        async with open_bridge() as bridge:
            async with open_channel(bridge, "127.0.0.1", ports["decode"]) as channel:
                answer = await ask(channel, chat("Hi.", max_new_tokens=2))
                assert answer.error is None
                assert answer.timings[0]["kv_bytes"] > 0
                assert (await status(channel))["models"] == ["deepseek-r1-0528"]
            async with open_channel(bridge, "127.0.0.1", ports["prefill"]) as channel:
                assert (await status(channel))["role"] == "prefiller"
