"""Who is in: the connections of one process, counted in all and by address.

When every place is taken the connection that has been idle longest makes room, so that clients who hold connections and
send nothing, or half a head, keep nobody out. Only when all of them have a request running is a new one turned away.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog
from attrs import define, field

from ark_trio.config import Limits
from ark_trio.errors import ArkError, Overloaded, Unavailable
from ark_trio.hyper.descriptors import descriptor_limit

log = structlog.get_logger()

HEADROOM = 128
"""Descriptors that are left to the rest of the process."""
_LINGERING = 64
"""Connections that are being turned away at once; more are closed without a word."""
_COMPLAIN_S = 10.0
"""Between two lines of the log that say that connections are turned away."""


class Guest(Protocol):
    """A connection, as the door sees it."""

    def drop(self) -> None:
        """Close at once, without waiting."""


@define(eq=False)
class Door:
    """Counts connections in and out; read by whoever wants the figures."""

    limits: Limits
    entered: int = 0
    """Since the beginning."""
    turned_away: int = 0
    shed: int = 0
    """Idle ones that made room."""
    tell: Callable[[int], None] = lambda _: None
    """Hears how many are inside, whenever that changes."""
    _addresses: dict[Guest, str | None] = field(factory=dict)
    _by_address: Counter[str] = field(factory=Counter)
    _idle: dict[Guest, None] = field(factory=dict)
    """The one idle longest first."""
    _lingering: int = 0
    _complained: float = float("-inf")

    @property
    def inside(self) -> int:
        """Connections that are open."""
        return len(self._addresses)

    @property
    def places(self) -> int:
        """How many there may be; never as many as would take the last descriptor."""
        return max(1, min(self.limits.max_connections, descriptor_limit() - HEADROOM))

    def enter(self, guest: Guest, address: str | None) -> ArkError | None:
        """Let a connection in, or say why not. It is idle until it says otherwise."""
        if address and self._by_address[address] >= self.limits.max_connections_per_address:
            return self._refuse(Overloaded("There are too many connections from your address."))
        places = self.places
        if self.inside >= places:
            self._make_room()
        if self.inside >= places:
            return self._refuse(Unavailable("There are too many connections."))
        self.entered += 1
        self._addresses[guest] = address
        self._idle[guest] = None
        self.tell(self.inside)
        if address:
            self._by_address[address] += 1
        return None

    def leave(self, guest: Guest) -> None:
        """Forget a connection that has ended; more than once does no harm."""
        self._idle.pop(guest, None)
        address = self._addresses.pop(guest, None)
        self.tell(self.inside)
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    @property
    def may_linger(self) -> bool:
        """Whether there is time to tell one more why it is turned away."""
        return self._lingering < _LINGERING

    @contextmanager
    def lingering(self) -> Iterator[None]:
        """Count one that is being told."""
        self._lingering += 1
        try:
            yield
        finally:
            self._lingering -= 1

    def note(self, guest: Guest, *, idle: bool) -> None:
        """Note whether a connection has a request running."""
        self._idle.pop(guest, None)
        if idle and guest in self._addresses:
            self._idle[guest] = None

    def _make_room(self) -> None:
        """Drop the connection that has been idle longest."""
        for guest in self._idle:
            self.leave(guest)
            self.shed += 1
            self._complain("connection_shed")
            guest.drop()
            return

    def _refuse(self, error: ArkError) -> ArkError:
        self.turned_away += 1
        self._complain("connection_refused", reason=error.message)
        return error

    def _complain(self, event: str, **fields: str) -> None:
        """Log it, but not each time: this is what a flood looks like."""
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_S:
            self._complained = now
            log.warning(
                event,
                connections=self.inside,
                turned_away=self.turned_away,
                shed=self.shed,
                **fields,
            )
