"""Whose key is this? Answered in a time that tells nothing of the keys.

Candidates are found by a digest that a secret of this process has blinded, so nobody outside can steer what the search
compares; the candidate's own digest is compared in constant time, and so is a miss's.
"""

import hmac
import secrets
from collections.abc import Iterable
from typing import Final

from ark_trio.access.key import Key, digest_of

_MARK_BYTES: Final = 8
_NOBODY: Final = Key(name="", sha256=bytes(32))


class KeyRing:
    """The keys that are known."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._blind = secrets.token_bytes(32)
        self._by_mark = {self._mark(key.sha256): key for key in keys}

    def __len__(self) -> int:
        return len(self._by_mark)

    def find(self, secret: str) -> Key | None:
        """Return whom `secret` belongs to; expiry is the caller's to judge."""
        digest = digest_of(secret)
        candidate = self._by_mark.get(self._mark(digest), _NOBODY)
        same = hmac.compare_digest(candidate.sha256, digest)
        return candidate if same else None

    def _mark(self, digest: bytes) -> bytes:
        return hmac.digest(self._blind, digest, "sha256")[:_MARK_BYTES]
