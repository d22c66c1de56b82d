"""How much a key may still ask: requests and tokens a minute, requests at once. Pure: the time is an argument.

A rate is a bucket that holds a minute's worth and refills steadily. Tokens are set aside before a request runs, by an
estimate, and put right by the real usage when it is over; a bucket below zero is a debt, paid before the next request.
"""

from collections.abc import Hashable
from typing import Final, Literal

from attrs import define, field, frozen

from ark_trio.access.key import Key

_MINUTE_S: Final = 60.0
_LONGEST_DEBT: Final = 60
"""In minutes: an engine that miscounts must not lock a key out for days."""
_OCCUPIED_S: Final = 1.0
"""When to ask again while all that a key may have at once runs: nobody knows when one ends."""

What = Literal["requests", "tokens", "concurrent"]


@frozen(kw_only=True)
class Quota:
    """What a key may. It comes with every claim, so that new limits count at once and nobody but the file keeps them."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@frozen(kw_only=True)
class Rate:
    """One rate as it stands."""

    limit: int
    remaining: int
    reset_s: float
    """Time until all of it is there again."""


@frozen(kw_only=True)
class Verdict:
    """What became of a claim."""

    refused: What | None = None
    retry_after_s: float = 0.0
    requests: Rate | None = None
    tokens: Rate | None = None


def quota_of(key: Key) -> Quota | None:
    """Return a key's quota; None: there is nothing to count."""
    limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests)
    if limits == (None, None, None):
        return None
    return Quota(
        requests_per_minute=limits[0], tokens_per_minute=limits[1], concurrent_requests=limits[2]
    )


@define(eq=False)
class _Bucket:
    limit: int
    level: float
    at: float

    def refill(self, now: float, limit: int) -> None:
        earned = (now - self.at) * self.limit / _MINUTE_S
        self.level = min(self.level + earned, self.limit, limit)
        self.limit, self.at = limit, now

    def wait_s(self, wanted: float) -> float:
        return max(0.0, wanted - self.level) * _MINUTE_S / self.limit

    def rate(self) -> Rate:
        return Rate(
            limit=self.limit, remaining=max(0, int(self.level)), reset_s=self.wait_s(self.limit)
        )


@define(eq=False)
class _Account:
    requests: _Bucket | None = None
    tokens: _Bucket | None = None
    running: int = 0


@frozen
class _Claim:
    account: str
    tokens: int


@define(eq=False)
class Ledger:
    """What all keys have asked of late. Holds an account for each name that was ever in the file of keys."""

    _accounts: dict[str, _Account] = field(factory=dict)
    _open: dict[Hashable, _Claim] = field(factory=dict)

    def claim(self, now: float, ticket: Hashable, name: str, quota: Quota, tokens: int) -> Verdict:
        """Take one request and set `tokens` aside, all or nothing; `settle` the ticket when it is over, if it was not refused.

        More tokens than a minute's are taken as a minute's: an estimate must not forbid what is allowed.
        """
        account = self._accounts.setdefault(name, _Account())
        requests = account.requests = _at(now, account.requests, quota.requests_per_minute)
        bucket = account.tokens = _at(now, account.tokens, quota.tokens_per_minute)
        taken = min(tokens, bucket.limit) if bucket else 0
        most = quota.concurrent_requests
        waits: dict[What, float] = {
            "requests": requests.wait_s(1) if requests else 0.0,
            "tokens": bucket.wait_s(taken) if bucket else 0.0,
            "concurrent": _OCCUPIED_S if most is not None and account.running >= most else 0.0,
        }
        longest = max(waits, key=waits.__getitem__)
        if waits[longest] > 0:
            return _verdict(account, refused=longest, retry_after_s=waits[longest])
        if requests:
            requests.level -= 1
        if bucket:
            bucket.level -= taken
        account.running += 1
        self._open[ticket] = _Claim(name, taken)
        return _verdict(account)

    def settle(self, now: float, ticket: Hashable, used: int | None) -> None:
        """Put a claim right by what was really used; None: nobody knows, the estimate stands. A ticket that is not open is none."""
        claim = self._open.pop(ticket, None)
        if claim is None:
            return
        account = self._accounts[claim.account]
        account.running -= 1
        if account.tokens is not None and used is not None:
            bucket = account.tokens
            bucket.refill(now, bucket.limit)
            bucket.level = max(bucket.level + claim.tokens - used, -_LONGEST_DEBT * bucket.limit)

    def open_tickets(self) -> tuple[Hashable, ...]:
        """Return those that are to be settled yet."""
        return tuple(self._open)

    def look(self, now: float) -> dict[str, tuple[Verdict, int]]:
        """Return, by name, how the rates of each account stand and how many of its requests run or wait."""
        found = {}
        for name, account in self._accounts.items():
            for bucket in (account.requests, account.tokens):
                if bucket is not None:
                    bucket.refill(now, bucket.limit)
            found[name] = (_verdict(account), account.running)
        return found


def _at(now: float, bucket: _Bucket | None, limit: int | None) -> _Bucket | None:
    """Return a bucket as it is now; a new one is full."""
    if limit is None:
        return None
    if bucket is None:
        return _Bucket(limit, float(limit), now)
    bucket.refill(now, limit)
    return bucket


def _verdict(
    account: _Account, *, refused: What | None = None, retry_after_s: float = 0.0
) -> Verdict:
    return Verdict(
        refused=refused,
        retry_after_s=retry_after_s,
        requests=None if account.requests is None else account.requests.rate(),
        tokens=None if account.tokens is None else account.tokens.rate(),
    )
