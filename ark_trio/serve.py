"""The gateway as a process: the listening socket, the signals, and the way to a clean end.

The end is a sequence, read top to bottom in `_Server.stop`. What hypercorn's own command can't do is done here.
"""

import gc
import os
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import structlog
import trio
from attrs import define, evolve, field
from hypercorn.utils import wrap_app

from ark_trio.access.desk import Desk, RemoteStore
from ark_trio.access.store import Store
from ark_trio.api.web import Web, build_admin_web, build_web
from ark_trio.config import Settings
from ark_trio.doors import Doors, bound_to, open_doors
from ark_trio.errors import ConfigError
from ark_trio.hyper.config import HyperConfig, hyper_config, set_limits
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.descriptors import quiet_accept, raise_descriptor_limit
from ark_trio.hyper.fair import FairListener
from ark_trio.hyper.idle import EndingContext
from ark_trio.hyper.patch import mend_protocols, warn_of_versions
from ark_trio.relay.census import take_census
from ark_trio.relay.crowd import Crowd
from ark_trio.relay.gateway import Gateway, open_gateway
from ark_trio.relay.reading import take_reading
from ark_trio.relay.siblings import ALONE, Siblings, Topic
from ark_trio.relay.status import take_status
from ark_trio.systemd import SILENT, Notifier, open_notifier
from ark_trio.tls import door_context, renew_door
from ark_trio.workers import HEEDED, Supervisor

log = structlog.get_logger()

END_S = 0.5
"""Time for error frames to leave, the last of the drain: then connections are cut."""
QUIET_S = 0.5
"""Time in which connections that were accepted last may send their request, and are served."""
_YOUNG_OBJECTS = 20_000
"""So many more than were freed have the collector look through them; Python's own 700 are a busy gateway's third request."""
_OLDER = (10, 5)
STOP_MARGIN_S = 10.0
"""What the service manager is asked to wait beyond the longest drain."""


def run_proxy(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until a signal ends it; the process's exit code. `reload` reads the settings again."""
    warn_of_versions()
    raise_descriptor_limit()
    quiet_accept()
    with open_doors(settings) as doors, open_notifier(os.environ) as notifier:
        if settings.workers == 1:
            trio.run(serve, settings, doors, reload, notifier)
            return 0
        count, family, crowd = settings.workers, secrets.token_hex(8), Crowd(settings.workers)

        def work(
            number: int, notifier: Notifier, orders: socket.socket, counter: socket.socket
        ) -> None:
            place = Siblings(number=number, count=count, family=family, crowd=crowd)
            newest = _newest(settings, reload)
            trio.run(serve_worker, newest, doors, reload, notifier, orders, place, counter)

        supervisor = Supervisor(
            count=count, work=work, notifier=notifier, desk=Desk(), release=doors.close
        )
        return supervisor.run()


def _newest(settings: Settings, reload: Callable[[], Settings]) -> Settings:
    """What a worker starts with: it may take the place of one that had reloaded."""
    try:
        return reload()
    except ConfigError:
        return settings


async def serve(
    settings: Settings,
    doors: Doors,
    reload: Callable[[], Settings],
    notifier: Notifier = SILENT,
) -> None:
    """Serve at `doors` until a signal says to stop.

    SIGTERM drains, a second one or SIGINT ends at once, SIGHUP reloads, SIGUSR1 has the census logged.
    """
    with trio.open_signal_receiver(*HEEDED) as signals:
        await _serve(settings, doors, reload, notifier, signals)


async def serve_worker(
    settings: Settings,
    doors: Doors,
    reload: Callable[[], Settings],
    notifier: Notifier,
    orders: socket.socket,
    place: Siblings,
    counter: socket.socket,
) -> None:
    """Serve as one of several processes: the parent passes signals on by `orders`, and counts for all behind `counter`."""
    own = partial(share_of, place=place)
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](8)
        nursery.start_soon(_hear_parent, trio.socket.from_stdlib_socket(orders), send)
        store = RemoteStore(trio.socket.from_stdlib_socket(counter))
        nursery.start_soon(store.listen)
        await _serve(own(settings), doors, lambda: own(reload()), notifier, receive, place, store)
        nursery.cancel_scope.cancel()


async def _hear_parent(orders: trio.socket.SocketType, send: trio.MemorySendChannel[int]) -> None:
    """Pass on what the parent says; when it has died, drain."""
    while said := await orders.recv(1):
        await send.send(said[0])
    log.error("parent_died")
    await send.send(signal.SIGTERM)


async def _serve(
    settings: Settings,
    doors: Doors,
    reload: Callable[[], Settings],
    notifier: Notifier,
    signals: AsyncIterator[int],
    place: Siblings = ALONE,
    store: Store | None = None,
) -> None:
    async with open_gateway(settings, place, store) as gateway, trio.open_nursery() as nursery:
        server = Server(
            gateway=gateway, reload=reload, notifier=notifier, before_cut=_collect_no_more
        )
        nursery.start_soon(place.serve, partial(_tell_sibling, gateway))
        nursery.start_soon(server.heed, signals)
        nursery.start_soon(notifier.feed_watchdog)
        nursery.start_soon(notifier.keep_status, server.describe)
        _collect_less()
        await server.run(doors.main, doors.admin)
        nursery.cancel_scope.cancel()


def _collect_less() -> None:
    """Have the collector look at what requests leave, and more seldom: 5 to 8 % of a request's processor time.

    What is there now stays to the end: modules, routes, settings. A stream that is cut leaves a hundred objects in cycles, and they may wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *_OLDER)


def _collect_no_more() -> None:
    """Leave memory as it is: a thousand streams that are cut took 3 s to look through, and end with the process."""
    gc.disable()
    gc.freeze()


def _tell_sibling(gateway: Gateway, topic: Topic) -> Any:
    return take_reading(gateway) if topic == "reading" else take_status(gateway)


def share_of(settings: Settings, place: Siblings) -> Settings:
    """Return one worker's part of the limits that count for the whole gateway; the parts add up to the whole."""

    def part(whole: int) -> int:
        return whole // place.count + (place.number <= whole % place.count)

    limits = evolve(
        settings.limits,
        max_requests=max(1, part(settings.limits.max_requests)),  # with none it would only refuse
        max_waiting=part(settings.limits.max_waiting),
    )
    retries_per_s = -(-settings.fleet.retries_per_s // place.count)  # nor is one to go without
    return evolve(
        settings, limits=limits, fleet=evolve(settings.fleet, retries_per_s=retries_per_s)
    )


@define(kw_only=True, eq=False)
class Server:
    """Connections are taken, served and ended here."""

    gateway: Gateway
    reload: Callable[[], Settings]
    notifier: Notifier = SILENT
    before_cut: Callable[[], None] = lambda: None
    config: HyperConfig = field(init=False)
    _tls: ssl.SSLContext | None = None
    _asked_to_stop: trio.Event = field(factory=trio.Event)
    _asked_to_hurry: trio.Event = field(factory=trio.Event)
    _context: EndingContext = field(factory=EndingContext)

    def __attrs_post_init__(self) -> None:
        self.config = hyper_config(self.gateway.settings)
        self.gateway.door = self.config.door

    async def run(self, listener: socket.socket, admin: socket.socket | None = None) -> None:
        """Serve until every connection has ended after a stop; at the admin's door to the very end of that."""
        mend_protocols()
        handler = self._handler(build_web(self.gateway), self.config, self._context)
        async with trio.open_nursery() as stopping:
            # Connections outlive the listener: a nursery each.
            async with trio.open_nursery() as connections, trio.open_nursery() as door:
                stop = partial(self.stop, door.cancel_scope, connections.cancel_scope)
                stopping.start_soon(stop)
                if admin is not None:
                    stopping.start_soon(self._serve_admin, admin)
                listeners = [self._door(listener)]
                log.info("gateway_serves", bind=str(bound_to(listener)))
                self.notifier.ready(self.describe())
                await trio.serve_listeners(handler, listeners, handler_nursery=connections)
            stopping.cancel_scope.cancel()  # type: ignore[unreachable]  # the door can be cancelled

    def _door(
        self, listener: socket.socket
    ) -> trio.SocketListener | trio.SSLListener[trio.SocketStream]:
        """Return what clients come in by, with TLS if there is a certificate."""
        plain: Any = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        siblings = self.gateway.siblings
        if siblings.crowd is not None:
            siblings.crowd.note(siblings.number, 0)
            self.config.door.tell = partial(siblings.crowd.note, siblings.number)
            plain = FairListener(plain, siblings.crowd, siblings.number)
        self._tls = door_context(self.gateway.settings.http)
        return plain if self._tls is None else trio.SSLListener(plain, self._tls)

    async def _serve_admin(self, listener: socket.socket) -> None:
        # Its own places: those who run the gateway get in when clients have taken all of theirs.
        config = hyper_config(self.gateway.settings)
        handler = self._handler(build_admin_web(self.gateway), config, EndingContext())
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        log.info("admin_serves", bind=str(bound_to(listener)))
        await trio.serve_listeners(handler, listeners)

    def _handler(
        self, web: Web, config: HyperConfig, context: EndingContext
    ) -> Callable[[Any], Connection]:
        return partial(Connection, wrap_app(web, 0, "asgi"), config, context, {})

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
        await self._hurry_or(max(0, limits.drain_s - QUIET_S - END_S))
        self.gateway.abort()
        await trio.sleep(END_S)
        log.warning("connections_cut")
        self.before_cut()
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
            settings = self.reload()
            door_context(settings.http)
            self.gateway.apply(settings)
            renew_door(self._tls, settings.http)
        except ConfigError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400 (the line says it all)
            self.notifier.ready(f"reload refused, the old settings stay: {error}")
            return
        set_limits(self.config, self.gateway.settings.limits)
        self.notifier.ready(self.describe())
        log.info("settings_reloaded")
