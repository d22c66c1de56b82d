"""An engine's refusal in the words of its caller: it names an input of the contract, the caller a parameter of the API."""

from collections.abc import Mapping
from typing import Any, Final

from ark_trio.errors import ArkError
from ark_trio.protocol.parameter import Parameter, engine_inputs

_INPUTS: Final = "inputs."
"""How the contract's field of inputs is called, which some engines put before an input's name."""


def callers_names(params: Mapping[str, Any], table: Mapping[str, Parameter]) -> Mapping[str, str]:
    """Return, for the engine's inputs that have another name, the parameter that each came from."""
    inputs = engine_inputs(params, table)
    return {key: name for key, (name, _) in inputs.items() if key != name}


def own_names(table: Mapping[str, Parameter]) -> Mapping[str, str]:
    """Return what `callers_names` does where every parameter has one input and no two share it."""
    return {known.key: name for name, known in table.items() if known.key not in ("", name)}


def in_callers_words(error: ArkError, names: Mapping[str, str]) -> ArkError:
    """Return `error` about the caller's parameter, if it is about one that the engine knows by another name."""
    error = _without_inputs(error)
    param = error.param or ""
    for key, name in names.items():
        if param == key or param.startswith((f"{key}.", f"{key}[")):
            message = error.message
            for said in (param, key):
                if message.startswith(said):
                    message = name + message.removeprefix(said)
                    break
            return type(error)(message, param=name, code=error.code)
    return error


def _without_inputs(error: ArkError) -> ArkError:
    if not (error.param or "").startswith(_INPUTS):
        return error
    param = (error.param or "").removeprefix(_INPUTS)
    return type(error)(error.message.removeprefix(_INPUTS), param=param, code=error.code)
