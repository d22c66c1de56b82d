"""Variables that others set: deployments from before ark-trio existed, and the service manager."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ark_trio.errors import ConfigError
from ark_trio.settings.address import Address, parse_target

HOST_LIST = "HTTP_FORWARD_GRPC_HOST_LIST"
HOST = "HTTP_FORWARD_GRPC_HOST"
PORT = "HTTP_FORWARD_GRPC_PORT"
PREFILL = "PREFILL_NODE_IP"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a unit with LoadCredential=, not by people."""

_KEYS = "ark-keys"
_GRPC_PORT = 62000
_XLLM_PREFILL_PORT = 62001
_MAX_PORT = 65535


def inherited_decoders(environ: Mapping[str, str]) -> tuple[tuple[Address, ...], str] | None:
    """The decoders that those variables name, and the variable that named them. The list wins."""
    port = _port(environ)
    if listed := environ.get(HOST_LIST, "").strip():
        return _targets(HOST_LIST, listed, port), HOST_LIST
    if host := environ.get(HOST, "").strip():
        return _targets(HOST, host, port), HOST
    if environ.get(PORT, "").strip():
        return (Address(host="127.0.0.1", port=port),), PORT
    return None


def inherited_prefillers(
    environ: Mapping[str, str], values: Mapping[str, Any]
) -> tuple[tuple[Address, ...], str] | None:
    """The prefillers that `PREFILL_NODE_IP` names; the private engine is called on another port."""
    listed = environ.get(PREFILL, "").strip()
    if not listed:
        return None
    port = _XLLM_PREFILL_PORT if values.get("engine.driver") == "xllm" else _GRPC_PORT
    return _targets(PREFILL, listed, port), PREFILL


def inherited_keys(environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """The file of API keys that the service manager hands over as a credential, if it does."""
    folder = environ.get(CREDENTIALS, "").strip()
    path = Path(folder, _KEYS)
    return (path, CREDENTIALS) if folder and path.exists() else None


def _targets(source: str, text: str, port: int) -> tuple[Address, ...]:
    try:
        items = [item for item in text.split(",") if item.strip()]
        return tuple(parse_target(item, default_port=port) for item in items)
    except ValueError as error:
        raise ConfigError(f"{source}: {text[:80]!r}: expected host or host:port,…") from error


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get(PORT, "").strip() or str(_GRPC_PORT)
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MAX_PORT):
        raise ConfigError(f"{PORT}: {text[:80]!r}: expected a port from 1 to {_MAX_PORT}")
    return int(text)
