"""How long an engine may take: to its first token, between two, and for all of an answer."""

from ark_trio.config import Limits
from ark_trio.errors import DeadlineExceeded
from ark_trio.relay.record import Record


class Patience:
    """One request's limits in time. All times are Trio's clock."""

    __slots__ = ("_limits", "_record", "begun")

    def __init__(self, limits: Limits, record: Record) -> None:
        self._limits = limits
        self._record = record
        self.begun = False
        """The engine has said something."""

    def deadline(self, waiting_since: float) -> tuple[float, str]:
        """Return until when the engine is waited for, and the code of the limit that ends it."""
        if self.begun:
            next_token = (waiting_since + self._limits.between_tokens_s, "token_timeout")
        else:
            next_token = (waiting_since + self._limits.first_token_s, "first_token_timeout")
        if self._limits.total_s is None:
            return next_token
        return min(next_token, (self._record.started + self._limits.total_s, "total_timeout"))


def too_slow(code: str) -> DeadlineExceeded:
    """Return what ends an answer whose engine took too long."""
    return DeadlineExceeded(_TOO_SLOW[code], code=code)


_TOO_SLOW = {
    "first_token_timeout": "The engine did not begin to answer in time.",
    "token_timeout": "The engine stopped answering.",
    "total_timeout": "The answer took longer than is allowed.",
}
