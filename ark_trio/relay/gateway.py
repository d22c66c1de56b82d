"""The gateway's process-wide parts, opened once and owned by one task."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import structlog
import trio
from attrs import define, evolve, field

from ark_trio.access.admission import Admission
from ark_trio.access.key_file import open_keyring
from ark_trio.access.keyring import KeyRing
from ark_trio.access.store import LocalStore, Store
from ark_trio.config import Settings
from ark_trio.errors import ArkError, InternalError, ShuttingDown
from ark_trio.fleet.fleet import Fleet
from ark_trio.fleet.plan import plan_of
from ark_trio.fleet.roster import Roster
from ark_trio.metrics.watch import gc_watched, watch_lag
from ark_trio.protocol.ark_message import Message
from ark_trio.relay.ask import Ask
from ark_trio.relay.attempts import Attempts
from ark_trio.relay.bodies import Bodies
from ark_trio.relay.book import Book
from ark_trio.relay.pressure import Pressure
from ark_trio.relay.siblings import ALONE, Siblings
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.mailbox import FailingSink

log = structlog.get_logger()

_STOPPED = "The gateway is being stopped."
FIRST_LOOK_S = 1.0
"""How long start-up waits for the decoders' first answers; later they are found by the watch."""


class DoorCounts(Protocol):
    """What the door by which clients come in counts; see hyper/door.py."""

    entered: int
    turned_away: int
    shed: int

    @property
    def inside(self) -> int:
        """Connections that are open."""

    @property
    def places(self) -> int:
        """How many there may be."""


@define(kw_only=True, eq=False)
class Gateway:
    """What every request shares."""

    settings: Settings
    roster: Roster
    attempts: Attempts
    store: Store
    """Counts what keys ask."""
    keyring: KeyRing | None
    """None: there are no keys, and anybody may ask."""
    admission: Admission
    started_at: int
    """Unix time; the stable `created` of the models."""
    leaving: bool = False
    """It is going to stop: /readyz says so, requests are still served."""
    draining: bool = False
    """New requests are refused."""
    book: Book = field(factory=Book)
    """Every request's entry, and the counts."""
    siblings: Siblings = ALONE
    """The workers beside this one."""
    door: DoorCounts | None = None
    """None under another's server, which counts for itself."""
    aside: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1))
    """Allows a thread, one at a time, for what takes longer than streams can wait: parsing and spelling large requests."""
    bodies: Bodies = field(factory=Bodies)
    pressure: Pressure = field(factory=Pressure)
    _arriving: set[trio.CancelScope] = field(factory=set)
    """Of requests whose bodies have not come in full."""
    _open: set[FailingSink[Message]] = field(factory=set)

    @property
    def fleet(self) -> Fleet:
        """The decoders."""
        return self.roster.fleet

    def apply(self, settings: Settings) -> None:
        """Take new settings: keys, decoders and limits, without a touch to what runs.

        Raises:
            ConfigError: keys or certificates can't be read; nothing has changed.
        """
        plan = plan_of(settings)
        self.keyring = open_keyring(settings.keys_file)
        self.settings = settings
        self.admission.resize(**places(settings))
        fleet = settings.fleet
        self.attempts.most = fleet.retries
        self.attempts.budget.share = fleet.retry_percent / 100
        self.attempts.budget.per_s = fleet.retries_per_s
        self.pressure.most_s = settings.grpc.gather_s
        options = evolve(plan.options, gather_s=self.pressure.window_s)
        self.roster.apply(evolve(plan, options=options))

    @property
    def busy(self) -> bool:
        """Some request runs or waits."""
        return bool(self._open)

    @property
    def open_calls(self) -> int:
        """Calls that run or wait."""
        return len(self._open)

    def leave(self) -> None:
        """Have /readyz send no more requests here."""
        self.leaving = True

    def drain(self) -> None:
        """Refuse new requests from now on; those that run go on."""
        self.leaving = self.draining = True

    def abort(self) -> None:
        """End every request that runs or waits, each with an error that its client sees."""
        self.drain()
        for scope in self._arriving:
            scope.cancel()
        for sink in tuple(self._open):
            sink.fail(ShuttingDown(_STOPPED))

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Have the block, which waits for a request's body, end with an error when all requests do.

        Raises:
            ShuttingDown: they have.
        """
        with trio.CancelScope() as scope:
            self._arriving.add(scope)
            try:
                yield
            finally:
                self._arriving.discard(scope)
        if scope.cancelled_caught:
            raise ShuttingDown(_STOPPED)

    async def run_call(self, ask: Ask, sink: FailingSink[Message]) -> None:
        """Own one backend call from admission to its end, in a task of the request's.

        What happens is told through `sink` alone. Cancelled, it gives place, lease and gRPC stream back first.
        """
        self._open.add(sink)
        try:
            await self._call(ask, sink)
        except ArkError as error:
            sink.fail(error)
        except Exception:
            log.exception("request_crashed", request_id=ask.record.request_id)
            sink.fail(InternalError("The gateway failed."))
        finally:
            self._open.discard(sink)

    async def _call(self, ask: Ask, sink: FailingSink[Message]) -> None:
        if self.draining:
            raise ShuttingDown(_STOPPED)
        ask.record.queue()
        async with self.admission.place(ask.record.key or "", batch=ask.batch):
            ask.record.place()
            await self.attempts.run(ask, sink)


@asynccontextmanager
async def open_gateway(
    settings: Settings, siblings: Siblings = ALONE, store: Store | None = None
) -> AsyncIterator[Gateway]:
    """Open the asyncio loop, a channel to each decoder and the tasks that watch them. Yields once each was asked.

    The block must run in a task that lasts as long as the process serves: it owns all of these.
    """
    keyring = open_keyring(settings.keys_file)  # before there is a nursery to wrap what it raises
    async with open_bridge() as bridge, trio.open_nursery() as tasks:
        roster = Roster(bridge=bridge, nursery=tasks)
        gateway = Gateway(
            settings=settings,
            roster=roster,
            attempts=Attempts(fleet=roster.fleet),
            store=store or LocalStore(),
            keyring=keyring,
            admission=Admission(**places(settings)),
            started_at=int(time.time()),
            siblings=siblings,
        )
        gateway.apply(settings)
        tasks.start_soon(watch_lag, gateway.book.tally)
        tasks.start_soon(gateway.pressure.watch)
        tasks.start_soon(gateway.book.keep_rates)
        with trio.move_on_after(FIRST_LOOK_S):
            await gateway.roster.first_look()
        with gc_watched(gateway.book.tally):
            yield gateway
        tasks.cancel_scope.cancel()


def places(settings: Settings) -> dict[str, Any]:
    """Return what the settings say of the admission."""
    limits = settings.limits
    return {
        "max_running": limits.max_requests,
        "max_waiting": limits.max_waiting,
        "max_wait_s": limits.max_wait_s,
    }
