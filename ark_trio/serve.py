"""The gateway as a process: the listening socket, the signals, and the way to a clean end.

The end is a sequence, read top to bottom in `_Server.stop`. What hypercorn's own command can't do is done here.
"""

import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import structlog
import trio
from attrs import define, evolve, field
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from ark_trio.api.web import build_web
from ark_trio.config import Bind, Settings, require_runnable
from ark_trio.errors import ConfigError
from ark_trio.hyper.config import hyper_config
from ark_trio.hyper.connection import Connection
from ark_trio.relay.census import take_census
from ark_trio.relay.gateway import Gateway, open_gateway
from ark_trio.systemd import SILENT, Notifier, open_notifier, take_listener
from ark_trio.workers import HEEDED, Supervisor

log = structlog.get_logger()

BACKLOG = 1024
END_S = 1.0
"""Time for error frames to leave after streams are ended, before their connections are cut."""
QUIET_S = 0.5
"""Time in which connections that were accepted last may send their request, and are served."""
STOP_MARGIN_S = 10.0
"""What the service manager is asked to wait beyond the longest drain."""


def run_proxy(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until a signal ends it; the process's exit code. `reload` reads the settings again."""
    raise_descriptor_limit()
    with open_listener(settings) as listener, open_notifier(os.environ) as notifier:

        def work(notifier: Notifier, orders: socket.socket) -> None:
            trio.run(serve_worker, _newest(settings, reload), listener, reload, notifier, orders)

        if settings.workers > 1:
            return Supervisor(
                count=settings.workers, work=work, notifier=notifier, release=listener.close
            ).run()
        trio.run(serve, settings, listener, reload, notifier)
    return 0


def _newest(settings: Settings, reload: Callable[[], Settings]) -> Settings:
    """What a worker starts with: it may take the place of one that had reloaded."""
    try:
        return reload()
    except ConfigError:
        return settings


def raise_descriptor_limit() -> None:
    """Have as many descriptors as we may: each client takes one, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(
    settings: Settings,
    listener: socket.socket,
    reload: Callable[[], Settings],
    notifier: Notifier = SILENT,
) -> None:
    """Serve on `listener` until a signal says to stop.

    SIGTERM drains, a second one or SIGINT ends at once, SIGHUP reloads, SIGUSR1 has the census logged.
    """
    with trio.open_signal_receiver(*HEEDED) as signals:
        await _serve(settings, listener, reload, notifier, signals)


async def serve_worker(
    settings: Settings,
    listener: socket.socket,
    reload: Callable[[], Settings],
    notifier: Notifier,
    orders: socket.socket,
) -> None:
    """Serve as one of several processes, heeding the signals that the parent passes on by `orders`."""
    own = partial(share_of, workers=settings.workers)
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](8)
        nursery.start_soon(_hear_parent, trio.socket.from_stdlib_socket(orders), send)
        await _serve(own(settings), listener, lambda: own(reload()), notifier, receive)
        nursery.cancel_scope.cancel()


async def _hear_parent(orders: trio.socket.SocketType, send: trio.MemorySendChannel[int]) -> None:
    """Pass on what the parent says; when it has died, drain."""
    while said := await orders.recv(1):
        await send.send(said[0])
    log.error("parent_died")
    await send.send(signal.SIGTERM)


async def _serve(
    settings: Settings,
    listener: socket.socket,
    reload: Callable[[], Settings],
    notifier: Notifier,
    signals: AsyncIterator[int],
) -> None:
    async with open_gateway(settings) as gateway, trio.open_nursery() as nursery:
        server = Server(gateway=gateway, reload=reload, notifier=notifier)
        nursery.start_soon(server.heed, signals)
        nursery.start_soon(notifier.feed_watchdog)
        nursery.start_soon(notifier.keep_status, server.describe)
        await server.run(listener)
        nursery.cancel_scope.cancel()


def share_of(settings: Settings, workers: int) -> Settings:
    """Return one worker's part of the limits that count for the whole gateway."""
    limits = evolve(
        settings.limits,
        max_requests=-(-settings.limits.max_requests // workers),
        max_waiting=-(-settings.limits.max_waiting // workers),
    )
    return evolve(settings, limits=limits)


@define(kw_only=True, eq=False)
class Server:
    """Connections are taken, served and ended here."""

    gateway: Gateway
    reload: Callable[[], Settings]
    notifier: Notifier = SILENT
    _asked_to_stop: trio.Event = field(factory=trio.Event)
    _asked_to_hurry: trio.Event = field(factory=trio.Event)
    _context: WorkerContext = field(factory=lambda: WorkerContext(None))

    async def run(self, listener: socket.socket) -> None:
        """Serve until every connection has ended after a stop."""
        handler = partial(
            Connection,
            wrap_app(build_web(self.gateway), 0, "asgi"),
            hyper_config(self.gateway.settings),
            self._context,
            {},
        )
        async with trio.open_nursery() as stopping:
            # Connections outlive the listener: a nursery each.
            async with trio.open_nursery() as connections, trio.open_nursery() as door:
                stop = partial(self.stop, door.cancel_scope, connections.cancel_scope)
                stopping.start_soon(stop)
                listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
                log.info("gateway_serves", bind=str(_bound(listener)))
                self.notifier.ready(self.describe())
                await trio.serve_listeners(handler, listeners, handler_nursery=connections)
            stopping.cancel_scope.cancel()  # type: ignore[unreachable]  # the door can be cancelled

    async def heed(self, signals: AsyncIterator[int]) -> None:
        """Act on each signal."""
        async for number in signals:
            log.info("signal_received", signal=signal.Signals(number).name)
            if number == signal.SIGUSR1:
                log.info("gateway_census", **take_census(self.gateway))
                continue
            if number == signal.SIGHUP:
                self._reload()
                continue
            if number == signal.SIGINT or self._asked_to_stop.is_set():
                self._asked_to_hurry.set()
            self._asked_to_stop.set()

    async def stop(self, door: trio.CancelScope, connections: trio.CancelScope) -> None:
        """Once asked to: say that we leave, stop accepting, let streams finish, end the rest, cut.

        Ends early, by cancellation, when the last connection has ended.
        """
        await self._asked_to_stop.wait()
        limits = self.gateway.settings.limits
        self.gateway.leave()
        longest_s = limits.settle_s + limits.drain_s + END_S
        self.notifier.stopping(self.describe(), longest_s + STOP_MARGIN_S)
        if self.gateway.busy:
            # Load balancers go on sending until they have seen /readyz, and are served meanwhile.
            await self._hurry_or(limits.settle_s)
        door.cancel()
        await self._hurry_or(QUIET_S)
        self.gateway.drain()
        await self._context.terminated.set()
        await self._hurry_or(limits.drain_s)
        self.gateway.abort()
        await trio.sleep(END_S)
        log.warning("connections_cut")
        connections.cancel()

    async def _hurry_or(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._asked_to_hurry.wait()

    def describe(self) -> str:
        """What goes on, for `systemctl status`."""
        decoders = self.gateway.fleet.decoders
        ready = sum(decoder.ready for decoder in decoders)
        running, waiting = self.gateway.admission.running, self.gateway.admission.waiting
        state = "draining, " if self.gateway.leaving else ""
        return f"{state}{running} streams, {waiting} waiting, {ready} of {len(decoders)} decoders ready"

    def _reload(self) -> None:
        """Take the new settings, or keep the old ones if they are bad."""
        self.notifier.reloading()
        try:
            self.gateway.apply(self.reload())
        except ConfigError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 (the line says it all)
            self.notifier.ready(f"reload refused, the old settings stay: {error}")
            return
        self.notifier.ready(self.describe())
        log.info("settings_reloaded")


@contextmanager
def open_listener(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the address of the settings, or on what systemd listens on for us, for as long as the block lasts.

    Raises:
        ConfigError: the address can't be listened on, or other hosts reach it and may not.
    """
    handed = take_listener(os.environ)
    if handed is not None:
        with handed:
            bound = _bound(handed)
            if bound != settings.bind:
                log.warning("bind_ignored", bind=str(settings.bind), socket_unit=str(bound))
            require_runnable(evolve(settings, bind=bound), "proxy")
            yield handed
        return
    bind = settings.bind
    try:
        listener = _listen(bind)
    except OSError as error:
        raise ConfigError(f"bind: can't listen on {bind}: {error.strerror or error}") from error
    try:
        yield listener
    finally:
        listener.close()
        if bind.path is not None:
            bind.path.unlink(missing_ok=True)


def _bound(listener: socket.socket) -> Bind:
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
