"""What the private engine is started with: command line, environment, folder. Pure.

The same rows in the same order are in docker/prefiller-setup and docker/decoder-setup; a test compares the two.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

from ark_trio.config import Settings, XllmSettings

Role = Literal["decoder", "prefiller"]

_ENV_FILES = {"prefiller": "prefill_enc.env", "decoder": "decode_enc.env"}
_DRIVER_TYPES = {"prefiller": "splitwise_prefill", "decoder": "splitwise_decode"}
LICENSE_NAME = "license.lic"
_ROUTING = "SPLITWISE_PREFILL_ROUTING_CONFIG__"


@frozen(kw_only=True)
class Host:
    """What only a look at this host can tell."""

    gpus: int
    local_addr: str
    """IPv4, as the other hosts reach it."""


def env_file(xllm: XllmSettings, role: Role) -> Path:
    """Where the role's environment file is."""
    return xllm.env_file or xllm.home / _ENV_FILES[role]


def gemm_config(xllm: XllmSettings) -> Path:
    """Where the tuner's results are."""
    return xllm.model_dir / "saved_model" / "gemm_config"


def command(settings: Settings, role: Role) -> list[str]:
    """The command line, to be run in the engine's folder."""
    xllm = settings.xllm
    return [
        f"./{xllm.binary}",
        "--model-dir",
        str(xllm.model_dir),
        "--env-path",
        str(env_file(xllm, role)),
        "--driver-type",
        _DRIVER_TYPES[role],
        "--num-server-procs",
        str(xllm.server_procs),
        "--port",
        str(settings.grpc_bind.port),
    ]


def environment(
    settings: Settings, role: Role, host: Host, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment: what is inherited, and over it what the engine is told."""
    home = str(settings.xllm.home)
    own = _of_both(settings.xllm, host)
    own |= _of_decoder(settings, host) if role == "decoder" else _of_prefiller(host)
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        own[name] = ":".join(filter(None, (home, inherited.get(name))))
    return {**inherited, **own}


def _of_both(xllm: XllmSettings, host: Host) -> dict[str, str]:
    return {
        "XLLM_MODEL_MP_SIZE": str(host.gpus),
        "XLLM_PARALLEL_LOCAL_WORLD_SIZE": str(host.gpus),
        "XLLM_MODEL_NAME": xllm.model_name,
        "XLLM_MODEL_VERSION": xllm.model_version,
        "XLLM_DRAFT_MODEL_MODEL_DIR": str(xllm.draft_model_dir),
        "XPERF_TUNER_CONFIG_LOAD_PATH": str(gemm_config(xllm)),
        "VETURBORPC_LOCAL_ADDR": host.local_addr,
    }


def _of_prefiller(host: Host) -> dict[str, str]:
    return {"XLLM_PARALLEL_TP_SIZE": str(host.gpus)}


def _of_decoder(settings: Settings, host: Host) -> dict[str, str]:
    xllm = settings.xllm
    return {
        _ROUTING + "ROUTING_STRATEGY": "p2c",
        _ROUTING + "PICK_N": str(xllm.pick_n),
        _ROUTING + "ROUTING_TABLE_UPDATER_CONFIG__TYPE": "env_based",
        _ROUTING + "ROUTING_TABLE_UPDATER_CONFIG__ADDRS_VAR_NAME": "PREFILL_ADDRS",
        "PREFILL_ADDRS": ",".join(str(address) for address in settings.prefillers),
        "SPLITWISE_DRIVER_PORT": str(xllm.driver_port),
        "SPLITWISE_KV_CACHE_RECEIVER_PORT": str(xllm.kv_port),
        "SPLITWISE_PREFILL_LENGTH_THRESHOLD": "0",
        "SPLITWISE_KV_TRANSFER_BACKEND": "veturborpc",
        "SPLITWISE_DECODE_ADDR": host.local_addr,
        "SPLITWISE_KV_CACHE_RECEIVER_ADDR": host.local_addr,
        "XLLM_PROCESSOR_REASONING_END_TOKEN": "</think>",
        "XLLM_PROCESSOR_REASONING_PREFILL_TEMPLATE": "<think>\n",
        "XLLM_PROCESSOR_TOOL_PARSER": "deepseek_r1",
    }
