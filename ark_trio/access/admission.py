"""How many requests run, how many wait, and who is next; beyond that they are refused at once.

A place goes to the key that holds the fewest, in turn where several do, so that a thousand requests of one key delay another's
by a place or two and not by a thousand. Interactive requests go before batch, which has an eighth of the places that become free and an eighth of
the line: it is slow and never starved. Where the line is full, a newcomer takes the place of the youngest request of the key
that waits with the most, if that is still the more unfair.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

import trio
from attrs import define, field

from ark_trio.bell import Bell
from ark_trio.errors import Overloaded

BATCH_SHARE: Final = 8
"""One in so many is batch's, of places and of the line, while others want them."""
_RETRY_MAX_S: Final = 60
_REMEMBERED: Final = 64


@define(kw_only=True, eq=False)
class _Turn:
    """One request's way through: it waits, then runs, unless it is dropped."""

    key: str
    batch: bool
    runs: bool = False
    dropped: bool = False
    called: Bell = field(factory=Bell)


class _Line:
    """Those who wait in one class: a line for each key, the keys in the order in which they were served."""

    def __init__(self) -> None:
        self._turns: dict[str, deque[_Turn]] = {}
        self.length = 0

    def waiting(self, key: str) -> int:
        return len(self._turns.get(key, ()))

    def counts(self) -> Iterator[tuple[str, int]]:
        return ((key, len(turns)) for key, turns in self._turns.items())

    def join(self, turn: _Turn) -> None:
        self._turns.setdefault(turn.key, deque()).append(turn)
        self.length += 1

    def take(self, running: Counter[str]) -> _Turn:
        """Take the oldest of the key with the fewest places; of several such keys, the one that was served longest ago."""
        key = min(self._turns, key=running.__getitem__)
        turns = self._turns.pop(key)
        turn = turns.popleft()
        if turns:
            self._turns[key] = turns
        self.length -= 1
        return turn

    def drop(self) -> _Turn:
        """Take the youngest of the key that waits with the most."""
        key = max(self._turns, key=self.waiting)
        turn = self._turns[key][-1]
        self.leave(turn)
        return turn

    def leave(self, turn: _Turn) -> None:
        turns = self._turns[turn.key]
        turns.remove(turn)
        if not turns:
            del self._turns[turn.key]
        self.length -= 1

    @property
    def longest(self) -> int:
        return max(map(len, self._turns.values()), default=0)


class Admission:
    """Bounded places to run, and a bounded, fair line before them."""

    def __init__(self, *, max_running: int, max_waiting: int, max_wait_s: float = math.inf) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._running: Counter[str] = Counter()
        self._lines = {False: _Line(), True: _Line()}
        self._passed = 0
        """Interactive requests that were let in while batch waited, since batch was let in."""
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        """When places became free: how fast the line moves."""
        self.running = 0
        """Requests that hold a place."""

    def resize(self, *, max_running: int, max_waiting: int, max_wait_s: float = math.inf) -> None:
        """Change the limits; those that run or wait already go on."""
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._fill()

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._lines[False].length + self._lines[True].length

    def by_key(self) -> dict[str, tuple[int, int]]:
        """Return how many run and how many wait, of each key that has any; "" is those without a key."""
        waiting: Counter[str] = Counter()
        for line in self._lines.values():
            waiting.update(dict(line.counts()))
        return {key: (self._running[key], waiting[key]) for key in {**self._running, **waiting}}

    def require_hope(self, key: str) -> None:
        """Refuse a request of `key` that no place nor line would take now, whatever it turns out to ask.

        Raises:
            Overloaded: so it is.
        """
        if self.running < self._max_running or self.waiting < self._max_waiting:
            return
        if not any(self._line_to_shorten(key, batch=batch) for batch in (False, True)):
            raise self._refusal()

    def place(self, key: str = "", *, batch: bool = False) -> "Place":
        """Return a place to hold for as long as the block that it opens lasts; see `Place`."""
        return Place(self, _Turn(key=key, batch=batch))

    async def enter(self, turn: _Turn) -> None:
        """Wait until a turn runs, or leave the line. Not a checkpoint where a place is free."""
        self._join(turn)
        if not turn.runs:
            try:
                await self._wait(turn)
            except BaseException:  # among them the cancellation of one that has just been let in
                self.leave(turn)
                raise

    async def _wait(self, turn: _Turn) -> None:
        with trio.move_on_after(self._max_wait_s):
            await turn.called.heard()
        if not turn.runs:
            raise self._refusal()

    def _join(self, turn: _Turn) -> None:
        if self.running < self._max_running:
            self._let_in(turn)
            return
        if self.waiting >= self._max_waiting:
            line = self._line_to_shorten(turn.key, batch=turn.batch)
            if line is None:
                raise self._refusal()
            dropped = line.drop()
            dropped.dropped = True
            dropped.called.ring()
        self._lines[turn.batch].join(turn)

    def _line_to_shorten(self, key: str, *, batch: bool) -> _Line | None:
        """Return the line whose youngest gives way to a newcomer; None: nobody who waits has a worse claim."""
        mine, other = self._lines[batch], self._lines[not batch]
        for_batch = self._max_waiting // BATCH_SHARE
        share = for_batch if batch else self._max_waiting - for_batch
        if mine.length < share and other.length:
            return other
        return mine if mine.longest > mine.waiting(key) + 1 else None

    def leave(self, turn: _Turn) -> None:
        """Give a turn's place back, or its place in the line, if it has either."""
        if turn.runs:
            self.running -= 1
            self._running[turn.key] -= 1
            if not self._running[turn.key]:
                del self._running[turn.key]
            self._ends.append(trio.current_time())
            self._fill()
        elif not turn.dropped:
            self._lines[turn.batch].leave(turn)

    def _fill(self) -> None:
        while self.running < self._max_running and self.waiting:
            turn = self._next()
            self._let_in(turn)
            turn.called.ring()

    def _next(self) -> _Turn:
        interactive, batch = self._lines[False], self._lines[True]
        if interactive.length and (not batch.length or self._passed < BATCH_SHARE - 1):
            self._passed = self._passed + 1 if batch.length else 0
            return interactive.take(self._running)
        self._passed = 0
        return batch.take(self._running)

    def _let_in(self, turn: _Turn) -> None:
        turn.runs = True
        self.running += 1
        self._running[turn.key] += 1

    def _refusal(self) -> Overloaded:
        text = "Too many requests are waiting. Try again shortly."
        return Overloaded(text, retry_after_s=self._retry_after_s())

    def _retry_after_s(self) -> int:
        """Return how long the line takes at the pace of late."""
        if len(self._ends) < 2:  # noqa: PLR2004 (a pace takes two)
            return 1
        elapsed = trio.current_time() - self._ends[0]
        wait_s = elapsed * (self.waiting + 1) / len(self._ends)
        return max(1, min(_RETRY_MAX_S, math.ceil(wait_s)))


class Place:
    """One request's place, held by `async with`. No context manager made of a generator: each request has one.

    Raises, when the block is entered:
        Overloaded: the line is full, or no place became free in time.
    """

    __slots__ = ("_admission", "_turn")

    def __init__(self, admission: Admission, turn: _Turn) -> None:
        self._admission = admission
        self._turn = turn

    async def __aenter__(self) -> None:
        await self._admission.enter(self._turn)

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave(self._turn)
