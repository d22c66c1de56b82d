"""Where quotas are counted: the interface, and the one that counts in this process.

Each call is atomic. It is async because a store may be elsewhere: in the parent of several workers (access/desk.py), or in a
database.
"""

from collections.abc import Callable
from itertools import count
from typing import Protocol

import trio
from attrs import define, field

from ark_trio.access.quota import Ledger, Quota, Verdict

Ticket = int


class Store(Protocol):
    """Counts what keys ask."""

    async def claim(self, name: str, quota: Quota, tokens: int) -> tuple[Ticket, Verdict]:
        """Take one request of a key and set tokens aside; what was not refused is to be settled.

        Cancelled, it has taken nothing.

        Raises:
            Unavailable: the store can't be reached.
        """

    async def settle(self, ticket: Ticket, used: int) -> None:
        """Put a claim right by the tokens that were really used. The caller bounds it."""


@define(eq=False)
class LocalStore:
    """Counts in this process alone."""

    ledger: Ledger = field(factory=Ledger)
    clock: Callable[[], float] = trio.current_time
    _tickets: "count[int]" = field(factory=count)

    async def claim(self, name: str, quota: Quota, tokens: int) -> tuple[Ticket, Verdict]:
        """See `Store`."""
        ticket = next(self._tickets)
        return ticket, self.ledger.claim(self.clock(), ticket, name, quota, tokens)

    async def settle(self, ticket: Ticket, used: int) -> None:
        """See `Store`."""
        self.ledger.settle(self.clock(), ticket, used)
