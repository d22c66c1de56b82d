"""One API key as the gateway knows it: never the key itself, only its digest and what its holder may do."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Final, Literal

from attrs import frozen

Priority = Literal["interactive", "batch"]

PREFIX: Final = "sk-ark-"
"""What all keys begin with, so that people and secret scanners know one when they see it."""
_SECRET_BYTES: Final = 32


@frozen(kw_only=True)
class Key:
    """Whom a key stands for, and what they may do. None: no limit."""

    name: str
    sha256: bytes
    """Digest of the key. Keys are random, so it needs neither salt nor stretching: there is nothing to guess."""
    models: tuple[str, ...] | None = None
    """Models that may be asked."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    concurrent_requests: int | None = None
    """Requests that run or wait at once."""
    priority: Priority = "interactive"
    expires: datetime | None = None
    admin: bool = False
    """May see the state of the gateway as a whole."""

    def may_use(self, model: str) -> bool:
        """Whether the key is for this model."""
        return self.models is None or model in self.models

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over."""
        return self.expires is not None and (now or datetime.now(UTC)) >= self.expires


def new_secret() -> str:
    """Return a new key: the only time that it exists here."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(secret.encode()).digest()
