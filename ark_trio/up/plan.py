"""Which services `up` runs, on which ports, with which flags; refused before anything is started."""

import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Mapping, Sequence

from attrs import frozen

from ark_trio.config import Address, Bind, Settings, require_runnable
from ark_trio.errors import ConfigError
from ark_trio.model import find_model, model_name
from ark_trio.settings.declare import Role, rows

DOCUMENTED_MODEL = "deepseek-r1-0528"
"""`up` answers for it whatever it runs, so that documented examples work."""

_LOOPBACK = "127.0.0.1"


@frozen(kw_only=True)
class Service:
    """One child to be: what to call it, how to start it, where it will listen."""

    name: str
    command: Sequence[str]
    bind: Bind
    port_flag: str
    """What to type to have it elsewhere."""


@frozen(kw_only=True)
class Plan:
    """All that `up` is going to run, in the order of starting."""

    services: Sequence[Service]
    model: str
    """A name that the decoder answers for."""

    @property
    def gateway(self) -> Service:
        """The service that users talk to: the last one."""
        return self.services[-1]


def make_plan(
    settings: Settings, decoder_port: int, prefiller_port: int, passed_on: Mapping[str, str]
) -> Plan:
    """Plan prefiller, decoder and gateway.

    Args:
        settings: as the gateway will have them.
        decoder_port: on loopback.
        prefiller_port: on loopback.
        passed_on: flags that were typed; each service gets those that it takes.

    Raises:
        ConfigError: a service would refuse to start, or the engine or its model is missing.
    """
    for role in ("proxy", "decoder"):
        require_runnable(settings, role)
    names = _served_names(settings)
    decoder = Address(host=_LOOPBACK, port=decoder_port)
    prefiller = Address(host=_LOOPBACK, port=prefiller_port)
    flags: dict[Role, list[str]] = {
        "prefiller": [f"--grpc-bind={prefiller}"],
        "decoder": [
            f"--grpc-bind={decoder}",
            f"--prefillers={prefiller}",
            f"--served-names={','.join(names)}",
        ],
        "proxy": [f"--bind={settings.bind}", f"--decoders={decoder}"],
    }
    binds = {"prefiller": _bind(prefiller), "decoder": _bind(decoder), "proxy": settings.bind}
    services = tuple(
        Service(
            name="gateway" if role == "proxy" else role,
            command=(*_command(role), *_accepted(role, passed_on), *own),
            bind=binds[role],
            port_flag="--bind" if role == "proxy" else f"--{role}-port",
        )
        for role, own in flags.items()
    )
    return Plan(services=services, model=names[0])


def require_free_ports(services: Sequence[Service]) -> None:
    """See that every service can listen where it is to, all at once.

    Raises:
        ConfigError: one can't; the text names the address, the service, and the flag that changes it.
    """
    held: list[socket.socket] = []
    try:
        for service in services:
            try:
                held.append(_listening(service.bind))
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                reason = (
                    "is taken by another process" if taken else f"can't be used ({error.strerror})"
                )
                raise ConfigError(
                    f"{_spelled(service.bind)} {reason}; the {service.name} needs it"
                    f" (another one: {service.port_flag})"
                ) from error
    finally:
        for each in held:
            each.close()


def _command(role: Role) -> list[str]:
    # -P: a folder that happens to hold a random.py must not break what is started in it.
    return [
        sys.executable,
        "-P",
        "-m",
        "ark_trio",
        role,
        f"--parent={os.getpid()}",
        "--log-format=text",
    ]


def _accepted(role: Role, passed_on: Mapping[str, str]) -> list[str]:
    known = {row.flag for row in rows(Settings) if role in row.spec.roles} | {"--config"}
    return [f"{flag}={value}" for flag, value in passed_on.items() if flag in known]


def _served_names(settings: Settings) -> list[str]:
    engine = settings.engine
    own = list(engine.served_names)
    if engine.driver == "llama":
        if importlib.util.find_spec("xllamacpp") is None:
            raise ConfigError("the engine is not installed: pip install 'ark-trio[engine]'")
        own = own or [model_name(find_model(settings))]
    own = own or [engine.driver]
    return own if DOCUMENTED_MODEL in own else [*own, DOCUMENTED_MODEL]


def _bind(address: Address) -> Bind:
    return Bind(host=address.host, port=address.port)


def _listening(bind: Bind) -> socket.socket:
    if bind.path is not None:
        return _listening_at_path(str(bind.path))
    family, _, _, _, where = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
        probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def _listening_at_path(path: str) -> socket.socket:
    """A socket's file stays behind when its process dies; it is taken only while someone accepts."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1)
    try:
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return probe
    except OSError:
        probe.close()
        raise
    probe.close()
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _spelled(bind: Bind) -> str:
    return str(bind.path) if bind.path is not None else f"port {bind.port} ({bind})"
