"""The requests of this process: those that run, and what those that have ended came to."""

from typing import cast

import trio
from attrs import define, field

from ark_trio.metrics import catalogue as metrics
from ark_trio.metrics.labels import KeyNames, ModelNames, endpoint_of
from ark_trio.metrics.tally import Tally
from ark_trio.relay.rates import SAMPLE_S, Rates
from ark_trio.relay.record import CLIENT_GONE_STATUS, COMPLETED, Record

_TOKENS = (
    metrics.PROMPT_TOKENS,
    metrics.CACHED_TOKENS,
    metrics.GENERATED_TOKENS,
    metrics.REASONING_TOKENS,
)
_KEY_TOKENS = (
    metrics.KEY_PROMPT_TOKENS,
    metrics.KEY_CACHED_TOKENS,
    metrics.KEY_GENERATED_TOKENS,
)
"""As the first of `_TOKENS`: reasoning is generated too, and charged as such."""
_Counts = tuple[int, int, int, int]
"""As `_TOKENS`."""
_NOTHING: _Counts = (0, 0, 0, 0)


@define(eq=False)
class Book:
    """Opened once; every request has one entry."""

    tally: Tally = field(factory=Tally)
    models: ModelNames = field(factory=ModelNames)
    _keys: KeyNames = field(factory=KeyNames)
    _rates: Rates = field(factory=Rates)
    _live: dict[Record, _Counts] = field(factory=dict)
    """With the tokens that have been counted of each."""

    @property
    def live(self) -> tuple[Record, ...]:
        """Requests that run, the oldest first."""
        return tuple(self._live)

    def begin(self, record: Record) -> None:
        """Have the request in the book, until `end`."""
        self._live[record] = _NOTHING

    def end(self, record: Record) -> None:
        """Write the request's line and count it."""
        record.write()
        self._count_tokens(record)
        self._count_end(record)
        del self._live[record]

    def count_so_far(self) -> None:
        """Count the tokens of requests that run: a long answer is no sudden one."""
        for record in self._live:
            self._count_tokens(record)

    async def keep_rates(self) -> None:
        """Look at the totals now and again, until cancelled."""
        while True:
            self._rates.keep(self._totals())
            await trio.sleep(SAMPLE_S)

    def rates(self) -> dict[str, float]:
        """Return what was done a second, over the last minute."""
        return self._rates.until(self._totals())

    def _totals(self) -> dict[str, float]:
        self.count_so_far()
        return {
            "requests": self.tally.total(metrics.REQUESTS),
            "prompt_tokens": self.tally.total(metrics.PROMPT_TOKENS),
            "generated_tokens": self.tally.total(metrics.GENERATED_TOKENS),
        }

    def _count_tokens(self, record: Record) -> None:
        if record.asked is None:
            return
        told, before = _told(record), self._live[record]
        if told == before:
            return
        model = self.models.label(record.model)
        # An engine may correct itself downwards; a counter can't, nor does it count again what comes back. With 0 the series begins, as rates want it.
        most, more = told, told
        if before is not _NOTHING:
            most = cast(_Counts, tuple(map(max, told, before)))
            more = cast(_Counts, tuple(now - then for now, then in zip(most, before, strict=True)))
        for metric, by in zip(_TOKENS, more, strict=True):
            self.tally.count(metric, model, by=by)
        if record.key is not None:
            labels = self._keys.labels(record.key, model)
            for metric, by in zip(_KEY_TOKENS, more, strict=False):
                self.tally.count(metric, *labels, by=by)
        self._live[record] = most

    def _count_end(self, record: Record) -> None:
        tally, model = self.tally, self.models.label(record.model)
        outcome = record.outcome or ""
        tally.count(metrics.REQUESTS, endpoint_of(record.path), model, outcome)
        if record.key is not None:
            tally.count(metrics.KEY_REQUESTS, *self._keys.labels(record.key, model), outcome)
        if record.retries:
            tally.count(metrics.RETRIES, by=record.retries)
        if record.status == CLIENT_GONE_STATUS:
            tally.count(metrics.DISCONNECTS, record.phase, outcome)
        if record.queued is not None and record.placed is not None:
            tally.distribution(metrics.QUEUE_TIME).add(record.placed - record.queued)
        if record.first_token is None:
            return
        first_s = record.first_token - record.started
        tally.distribution(metrics.FIRST_TOKEN, model).add(first_s)
        if (overhead_s := record.overhead_s) is not None:
            tally.distribution(metrics.OVERHEAD).add(overhead_s)
        if outcome == COMPLETED:
            tally.distribution(metrics.WHOLE, model).add(record.age_s)


def _told(record: Record) -> _Counts:
    usage = record.usage
    if usage is None:
        return (0, 0, record.messages, 0)
    return (
        usage.prompt_tokens,
        usage.cached_tokens or 0,
        usage.completion_tokens,
        usage.reasoning_tokens or 0,
    )
