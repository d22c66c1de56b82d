"""The private engine's command line, understood as ours: so the CPU engine can stand in its place, and a deployment be rehearsed.

`private_xllm.bin` is then a link to `ark-trio`, or a script that runs it with the same arguments.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ark_trio.errors import ConfigError
from ark_trio.settings.flags import LineParser

_SIGN = "--driver-type"
_ROLES = {"splitwise_prefill": "prefiller", "splitwise_decode": "decoder"}
_DEFAULT_PORT = 62000
_DRIVER_PORT = "62001"
_ALIAS = "deepseek-r1-0528"
"""The name under which documented examples ask for the private engine's model."""
_ASSIGNMENT = re.compile(r"(?:export )?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def stands_in(argv: Sequence[str]) -> bool:
    """Whether a command line is one of the private engine's."""
    return any(word == _SIGN or word.startswith(_SIGN + "=") for word in argv)


def own_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return what to run `ark-trio` with instead.

    Raises:
        ConfigError: the environment file can't be read.
        SystemExit: a flag is wrong; said on standard error.
    """
    options = _parser().parse_args(argv)
    role = _ROLES[options.driver_type]
    variables = {**_variables(options.env_path), **environ}
    arguments = [role, "--engine=llama", f"--grpc-bind=0.0.0.0:{options.port}"]
    arguments += _model(options.model_dir, variables)
    if "ARK_SERVED_NAMES" not in variables:
        names = dict.fromkeys((variables.get("XLLM_MODEL_NAME", _ALIAS), _ALIAS))
        arguments.append(f"--served-names={','.join(names)}")
    if role == "decoder":
        # What waits for a prefiller is the service that runs this in the private engine's place.
        arguments.append("--prefiller-wait-s=0")
        if variables.get("PREFILL_ADDRS"):
            arguments.append(f"--prefillers={variables['PREFILL_ADDRS']}")
    else:
        driver = variables.get("SPLITWISE_DRIVER_PORT", _DRIVER_PORT)
        if driver != str(options.port):
            arguments.append(f"--grpc-also-bind=0.0.0.0:{driver}")
    return arguments


def _parser() -> LineParser:
    parser = LineParser(
        prog="ark-trio", description="The CPU engine in the private engine's place."
    )
    parser.add_argument(_SIGN, required=True, choices=tuple(_ROLES))
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT)
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--env-path", type=Path)
    # One process serves whatever is asked.
    parser.add_argument("--num-server-procs", type=int, default=1)
    return parser


def _model(folder: Path | None, variables: Mapping[str, str]) -> list[str]:
    """Return the flag for a GGUF in the model's folder. The private engine's own files are of no use to this one."""
    if "ARK_MODEL" in variables or folder is None or not folder.is_dir():
        return []
    found = sorted(folder.glob("*.gguf"))
    return [f"--model={found[0]}"] if found else []


def _variables(path: Path | None) -> dict[str, str]:
    """Return the variables of an environment file; of an encrypted one there are none to see."""
    if path is None:
        return {}
    try:
        lines = path.read_bytes().decode(errors="ignore").splitlines()
    except OSError as error:
        raise ConfigError(f"--env-path: {path} can't be read: {error.strerror}") from error
    found = [match for line in lines if (match := _ASSIGNMENT.fullmatch(line.strip()))]
    return {match[1]: match[2].strip("\"'") for match in found}
