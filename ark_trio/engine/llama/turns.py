"""Turns at llama.cpp's batch: first come, first served, as many at once as fit into one."""

from collections import deque

import trio
from attrs import define, field, frozen


@frozen(eq=False)
class _Ticket:
    slot: int
    tokens: int
    let_in: trio.Event = field(factory=trio.Event)


@define(eq=False)
class Turns:
    """Who may have prompt tokens computed now. A slot has one turn at a time."""

    room: int
    """Tokens of a batch."""
    _taken: dict[int, int] = field(factory=dict)
    """Tokens by slot."""
    _queue: deque[_Ticket] = field(factory=deque)

    async def take(self, slot: int, tokens: int) -> None:
        """Wait for a turn of `tokens` tokens, which `slot` then has until `give_back`. Always a checkpoint."""
        ticket = _Ticket(slot, tokens)
        self._queue.append(ticket)
        self._let_in()
        try:
            await ticket.let_in.wait()
        except trio.Cancelled:
            if ticket.let_in.is_set():
                self.give_back(slot)
            else:
                self._queue.remove(ticket)
                self._let_in()
            raise

    def give_back(self, slot: int) -> None:
        """The slot's turn, if it has one, is over."""
        if self._taken.pop(slot, None) is not None:
            self._let_in()

    def _let_in(self) -> None:
        while self._queue and self._fits(self._queue[0].tokens):
            ticket = self._queue.popleft()
            self._taken[ticket.slot] = ticket.tokens
            ticket.let_in.set()

    def _fits(self, tokens: int) -> bool:
        """Whether the batch has room. The longest piece gets a batch of its own."""
        return not self._taken or sum(self._taken.values()) + tokens <= self.room
