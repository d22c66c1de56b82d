"""The gateway's listening sockets: clients' door, and one for those who run it where the settings want one."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from attrs import evolve, frozen

from ark_trio.config import Bind, Settings, require_runnable
from ark_trio.errors import ConfigError
from ark_trio.systemd import take_listener

log = structlog.get_logger()

BACKLOG = 1024


@frozen
class Doors:
    """The listening sockets."""

    main: socket.socket
    admin: socket.socket | None = None

    def close(self) -> None:
        """Stop listening in this process."""
        self.main.close()
        if self.admin is not None:
            self.admin.close()


@contextmanager
def open_doors(settings: Settings) -> Iterator[Doors]:
    """Listen where the settings say for as long as the block lasts.

    Raises:
        ConfigError: as `open_listener`.
    """
    with open_listener(settings) as main, ExitStack() as exits:
        admin = None
        if settings.admin_bind is not None:
            admin = exits.enter_context(_listen_or_refuse("admin_bind", settings.admin_bind))
        yield Doors(main, admin)


@contextmanager
def open_listener(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the address of the settings, or on what systemd listens on for us, for as long as the block lasts.

    Raises:
        ConfigError: the address can't be listened on, or other hosts reach it and may not.
    """
    handed = take_listener(os.environ)
    if handed is not None:
        with handed:
            bound = bound_to(handed)
            if bound != settings.bind:
                log.warning("bind_ignored", bind=str(settings.bind), socket_unit=str(bound))
            require_runnable(evolve(settings, bind=bound), "proxy")
            yield handed
        return
    with _listen_or_refuse("bind", settings.bind) as listener:
        yield listener


@contextmanager
def _listen_or_refuse(name: str, bind: Bind) -> Iterator[socket.socket]:
    try:
        listener = _listen(bind)
    except OSError as error:
        raise ConfigError(f"{name}: can't listen on {bind}: {error.strerror or error}") from error
    try:
        yield listener
    finally:
        listener.close()
        if bind.path is not None:
            bind.path.unlink(missing_ok=True)


def bound_to(listener: socket.socket) -> Bind:
    """Where a socket that was handed over listens."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Bind(path=Path(os.fsdecode(address)))
    return Bind(host=address[0], port=address[1])


def _listen(bind: Bind) -> socket.socket:
    if bind.path is not None:
        _remove_stale_socket(bind.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address: tuple[str, int] | str = str(bind.path)
    else:
        family, address = _resolve(bind)
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)  # noqa: FBT003 (the standard library's signature)
    return listener


def _resolve(bind: Bind) -> tuple[socket.AddressFamily, tuple[str, int]]:
    found = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _remove_stale_socket(path: Path) -> None:
    """Remove what a killed process left behind, but not the socket of one that still listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass
