"""What the private engine is started with, row by row as its operators know it."""

from pathlib import Path

from attrs import evolve

from ark_trio.config import Settings, load_settings
from ark_trio.engine.xllm.launch import Host, command, environment

HOST = Host(gpus=8, local_addr="10.0.0.7")
MAIN = "/data/models/DeepSeek-R1-ENC-xLLM"
DRAFT = "/data/models/DeepSeek-R1-DRAFT-ENC-xLLM"

BOTH = {
    "PYTHONPATH": "/app/xllm",
    "LD_LIBRARY_PATH": "/app/xllm",
    "XLLM_MODEL_MP_SIZE": "8",
    "XLLM_PARALLEL_LOCAL_WORLD_SIZE": "8",
    "XLLM_MODEL_NAME": "deepseek-r1",
    "XLLM_MODEL_VERSION": "250120",
    "XLLM_DRAFT_MODEL_MODEL_DIR": DRAFT,
    "XPERF_TUNER_CONFIG_LOAD_PATH": f"{MAIN}/saved_model/gemm_config",
    "VETURBORPC_LOCAL_ADDR": "10.0.0.7",
}
PREFILL = {**BOTH, "XLLM_PARALLEL_TP_SIZE": "8"}
DECODE = {
    **BOTH,
    "SPLITWISE_PREFILL_ROUTING_CONFIG__ROUTING_STRATEGY": "p2c",
    "SPLITWISE_PREFILL_ROUTING_CONFIG__PICK_N": "3",
    "SPLITWISE_DRIVER_PORT": "62001",
    "SPLITWISE_KV_CACHE_RECEIVER_PORT": "62002",
    "SPLITWISE_PREFILL_LENGTH_THRESHOLD": "0",
    "SPLITWISE_KV_TRANSFER_BACKEND": "veturborpc",
    "SPLITWISE_PREFILL_ROUTING_CONFIG__ROUTING_TABLE_UPDATER_CONFIG__TYPE": "env_based",
    "SPLITWISE_PREFILL_ROUTING_CONFIG__ROUTING_TABLE_UPDATER_CONFIG__ADDRS_VAR_NAME": "PREFILL_ADDRS",
    "PREFILL_ADDRS": "10.0.0.5:62001,10.0.0.6:62001",
    "SPLITWISE_DECODE_ADDR": "10.0.0.7",
    "SPLITWISE_KV_CACHE_RECEIVER_ADDR": "10.0.0.7",
    "XLLM_PROCESSOR_REASONING_END_TOKEN": "</think>",
    "XLLM_PROCESSOR_REASONING_PREFILL_TEMPLATE": "<think>\n",
    "XLLM_PROCESSOR_TOOL_PARSER": "deepseek_r1",
}


def settings(**more: str) -> Settings:
    environ = {"ARK_ENGINE": "xllm", "PREFILL_NODE_IP": "10.0.0.5,10.0.0.6", **more}
    return load_settings({}, environ)


def test_a_prefiller_gets_these_variables_and_no_others():
    assert environment(settings(), "prefiller", HOST, {}) == PREFILL


def test_a_decoder_gets_these_variables_and_no_others():
    assert environment(settings(), "decoder", HOST, {}) == DECODE


def test_the_command_line_of_each_role():
    shared = ["./private_xllm.bin", "--model-dir", MAIN, "--env-path"]
    ending = ["--num-server-procs", "4", "--port", "62000"]
    assert command(settings(), "prefiller") == [
        *shared,
        "/app/xllm/prefill_enc.env",
        "--driver-type",
        "splitwise_prefill",
        *ending,
    ]
    assert command(settings(), "decoder") == [
        *shared,
        "/app/xllm/decode_enc.env",
        "--driver-type",
        "splitwise_decode",
        *ending,
    ]


def test_what_is_inherited_stays_and_paths_come_behind_its_own():
    inherited = {"PATH": "/bin", "LD_LIBRARY_PATH": "/usr/local/cuda/lib64"}
    found = environment(settings(), "prefiller", HOST, inherited)
    assert found["PATH"] == "/bin"
    assert found["LD_LIBRARY_PATH"] == "/app/xllm:/usr/local/cuda/lib64"


def test_everything_can_be_set():
    chosen = settings(
        ARK_XLLM_HOME="/x",
        ARK_XLLM_BINARY="b",
        ARK_XLLM_MODEL_DIR="/m",
        ARK_XLLM_DRAFT_MODEL_DIR="/d",
        ARK_XLLM_ENV_FILE="/e",
        ARK_XLLM_SERVER_PROCS="2",
        ARK_XLLM_MODEL_NAME="n",
        ARK_XLLM_MODEL_VERSION="v",
        ARK_XLLM_DRIVER_PORT="1",
        ARK_XLLM_KV_PORT="2",
        ARK_XLLM_PICK_N="9",
        ARK_GRPC_BIND="0.0.0.0:7",
    )
    line = command(chosen, "decoder")
    assert line[:5] == ["./b", "--model-dir", "/m", "--env-path", "/e"]
    assert line[-4:] == ["--num-server-procs", "2", "--port", "7"]
    found = environment(chosen, "decoder", evolve(HOST, gpus=2), {})
    changed = {name: value for name, value in found.items() if DECODE[name] != value}
    assert changed == {
        "PYTHONPATH": "/x",
        "LD_LIBRARY_PATH": "/x",
        "XLLM_MODEL_MP_SIZE": "2",
        "XLLM_PARALLEL_LOCAL_WORLD_SIZE": "2",
        "XLLM_MODEL_NAME": "n",
        "XLLM_MODEL_VERSION": "v",
        "XLLM_DRAFT_MODEL_MODEL_DIR": "/d",
        "XPERF_TUNER_CONFIG_LOAD_PATH": "/m/saved_model/gemm_config",
        "SPLITWISE_DRIVER_PORT": "1",
        "SPLITWISE_KV_CACHE_RECEIVER_PORT": "2",
        "SPLITWISE_PREFILL_ROUTING_CONFIG__PICK_N": "9",
    }
    assert chosen.xllm.home == Path("/x")
