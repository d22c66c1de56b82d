"""What a service tells systemd (ready, state, alive) and what it may be handed by it: a socket, credentials.

Without systemd (no `NOTIFY_SOCKET`, no `LISTEN_FDS`) all of it does nothing. The protocols are sd_notify(3) and
sd_listen_fds(3): datagrams of `NAME=value` lines, and descriptors from 3 on.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress

import trio
from attrs import frozen

from ark_trio.errors import ConfigError

FIRST_FD = 3
"""Where systemd puts the first descriptor that it hands over."""
FEEDS = 3
"""How often the watchdog is fed within its limit: one feed may come late, and even be lost."""
STATUS_S = 1.0
"""Time between two looks at what the status line says."""

_OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)


@frozen(kw_only=True)
class Notifier:
    """The way to the service manager. Made by `open_notifier`."""

    watchdog_s: float | None
    """The manager restarts this process when it is silent for so long; None: it doesn't watch."""
    _socket: socket.socket | None
    _address: str = ""

    @property
    def connected(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Start-up is done, or a reload is."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, within_s: float) -> None:
        """The end begins and may take so long, whatever the unit's TimeoutStopSec says."""
        extend = f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}"
        self._tell("STOPPING=1", f"STATUS={_line(status)}", extend)

    def starting(self, status: str, within_s: float) -> None:
        """Start-up goes on and may take so much longer, whatever the unit's TimeoutStartSec says."""
        self._tell(f"STATUS={_line(status)}", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}")

    def status(self, text: str) -> None:
        """What the service does now, for `systemctl status`."""
        self._tell(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    async def feed_watchdog(self) -> None:
        """Feed it from this event loop until cancelled: a loop that is blocked doesn't, one that is busy does."""
        while self.watchdog_s is not None:
            self.alive()
            await trio.sleep(self.watchdog_s / FEEDS)

    async def keep_status(self, describe: Callable[[], str]) -> None:
        """Tell what `describe` says whenever it has changed, until cancelled."""
        told = ""
        while self.connected:
            if (text := describe()) != told:
                self.status(text)
                told = text
            await trio.sleep(STATUS_S)

    def _tell(self, *lines: str) -> None:
        # A manager that can't be told (restarted, its queue full) is no reason to fail.
        if self._socket is not None:
            with suppress(OSError):
                message = "\n".join(lines).encode()
                if self._address:
                    self._socket.sendto(message, self._address)
                else:
                    self._socket.send(message)


SILENT = Notifier(watchdog_s=None, socket=None)
"""Tells nobody."""


@contextmanager
def open_notifier(environ: Mapping[str, str]) -> Iterator[Notifier]:
    """Have a notifier for as long as the block lasts; one that does nothing where nobody listens."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        yield SILENT
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        yield Notifier(watchdog_s=_watchdog_s(environ), socket=sock, address=address)


def take_listener(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening socket that this process was started with, if any: from then on the caller's to close.

    The variables that tell of it are removed, so that no child takes it for its own.

    Raises:
        ConfigError: what was handed over is not one stream socket that listens.
    """
    count = environ.get("LISTEN_FDS", "")
    meant = environ.get("LISTEN_PID") == str(os.getpid()) and count.isdecimal() and int(count) > 0
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    if not meant:
        return None
    if int(count) != 1:
        raise ConfigError(f"socket activation: {count} sockets were handed over; one can be served")
    try:
        listener = socket.socket(fileno=FIRST_FD)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(
            f"socket activation: no socket was handed over: {error.strerror}"
        ) from error
    if not listening or listener.type != socket.SOCK_STREAM:
        listener.close()
        raise ConfigError("socket activation: Accept=no and a stream socket are needed")
    os.set_inheritable(FIRST_FD, False)  # noqa: FBT003 (the standard library's signature)
    listener.setblocking(False)  # noqa: FBT003
    return listener


def without_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for a child that is to speak neither to our manager nor for us."""
    return {name: value for name, value in environ.items() if name not in _OURS}


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    limit = environ.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or int(limit) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 1e6


def _line(text: str) -> str:
    return " ".join(text.split())
