"""hypercorn embedded: the listening socket, the signals, and the way to a clean end.

SIGTERM drains: no new connections, running streams have `drain_s`, the rest end with an error frame. A second one, or
SIGINT, ends them at once. What hypercorn's own command can't do (docs/operations.md) is done here.
"""

import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import trio
from attrs import define, field
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app

from ark_trio.app import Application
from ark_trio.config import Bind, Settings
from ark_trio.errors import ConfigError

log = structlog.get_logger()

BACKLOG = 1024
END_S = 1.0
"""Time for error frames to leave after streams are ended, before their connections are cut."""


def run_proxy(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until a signal ends it; the process's exit code. `reload` reads the settings again, on SIGHUP."""
    application = Application(lambda: settings)
    with open_listener(settings) as listener:
        trio.run(_serve, settings, application, listener, reload)
    return 0


async def _serve(
    settings: Settings,
    application: Application,
    listener: socket.socket,
    reload: Callable[[], Settings],
) -> None:
    stop = _Stop(application=application, drain_s=settings.limits.drain_s, reload=reload)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            stop.scope = nursery.cancel_scope
            nursery.start_soon(stop.heed, signals)
            nursery.start_soon(stop.end_in_time)
            await worker_serve(
                wrap_app(application, 0, "asgi"),
                hypercorn_config(settings),
                sockets=Sockets(secure_sockets=[], insecure_sockets=[listener], quic_sockets=[]),
                shutdown_trigger=stop.asked.wait,
            )
            nursery.cancel_scope.cancel()


@define(kw_only=True, eq=False)
class _Stop:
    """The end of the process, from the first signal on."""

    application: Application
    reload: Callable[[], Settings]
    drain_s: float
    scope: trio.CancelScope = field(init=False)
    asked: trio.Event = field(factory=trio.Event)
    _at_once: trio.Event = field(factory=trio.Event)

    async def heed(self, signals: AsyncIterator[int]) -> None:
        """Act on each signal."""
        async for number in signals:
            log.info("signal_received", signal=signal.Signals(number).name)
            if number == signal.SIGHUP:
                self._reload()
                continue
            if number == signal.SIGINT or self.asked.is_set():
                self._at_once.set()
            if self.application.gateway is not None:
                self.application.gateway.drain()
            self.asked.set()

    def _reload(self) -> None:
        """Take the new settings, or keep the old ones if they are bad."""
        try:
            settings = self.reload()
        except ConfigError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 (the line says it all)
            return
        if self.application.gateway is not None:
            self.application.gateway.apply(settings)
        log.info("settings_reloaded")

    async def end_in_time(self) -> None:
        """Once asked to stop: let streams finish for `drain_s`, end the rest with an error frame, then cut."""
        await self.asked.wait()
        with trio.move_on_after(self.drain_s):
            await self._at_once.wait()
        if self.application.gateway is not None:
            self.application.gateway.abort()
        await trio.sleep(END_S)
        log.warning("connections_cut")
        self.scope.cancel()


def hypercorn_config(settings: Settings) -> Config:
    """Return hypercorn's settings, each limit explicit."""
    config = Config()
    config.accesslog = None  # one line a request is written by our own record
    config.graceful_timeout = settings.limits.drain_s + END_S
    config.shutdown_timeout = END_S
    config.keep_alive_timeout = 75.0
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")  # ours to format, not hypercorn's
    return config


@contextmanager
def open_listener(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the address of the settings for as long as the block lasts.

    Raises:
        ConfigError: the address can't be listened on.
    """
    bind = settings.bind
    try:
        listener = _listen(bind)
    except OSError as error:
        raise ConfigError(f"bind: can't listen on {bind}: {error.strerror or error}") from error
    if bind.path is None:
        # Inherited by each connection. hypercorn sends under a shield that nothing can cancel, so
        # only the kernel can end a client that does not read.
        stalled_ms = int(settings.limits.stalled_write_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stalled_ms)
    try:
        yield listener
    finally:
        listener.close()
        if bind.path is not None:
            bind.path.unlink(missing_ok=True)


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
