"""What one request has set aside of its key's rates, and what it is charged when it is over, however it ended."""

import math
from typing import Final

from attrs import define

from ark_trio.access.key import Key
from ark_trio.access.quota import Verdict, quota_of
from ark_trio.access.store import Store, Ticket
from ark_trio.errors import RateLimited
from ark_trio.relay.record import COMPLETED, Record

SETTLE_S: Final = 1.0

_WHAT: Final = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "concurrent": "requests at once",
}


@define(eq=False)
class Tab:
    """One request's. Nothing is set aside until `claim`."""

    _store: Store
    verdict: Verdict | None = None
    """How the key's rates stood when the request was taken or refused; None: they are not counted."""
    _ticket: Ticket | None = None
    _prompt_tokens: int = 0

    async def claim(self, key: Key | None, *, prompt_tokens: int, answer_tokens: int) -> None:
        """Take one request of the key and set aside what it may come to; once, however often it is called.

        Raises:
            RateLimited: the key's rates are used up.
        """
        quota = None if key is None else quota_of(key)
        if key is None or quota is None or self._ticket is not None:
            return
        ticket, self.verdict = await self._store.claim(
            key.name, quota, prompt_tokens + answer_tokens
        )
        if self.verdict.refused is not None:
            raise _refusal(self.verdict)
        self._ticket, self._prompt_tokens = ticket, prompt_tokens

    async def settle(self, record: Record) -> None:
        """Charge what the request came to. The caller bounds it, and does so cancelled too."""
        if self._ticket is not None:
            await self._store.settle(self._ticket, self._used(record))

    def _used(self, record: Record) -> int:
        if record.asked is None:
            return 0  # no engine has seen it
        usage = record.usage
        if record.outcome == COMPLETED and usage is not None:
            return usage.total_tokens
        if record.first_token is None and record.outcome is not None and not record.left:
            return 0  # the engine failed before it said anything
        # What the engine has not told in the end: the prompt by its size, the answer by its messages.
        prompt, answer = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return (prompt or self._prompt_tokens) + max(answer, record.messages)


def _refusal(verdict: Verdict) -> RateLimited:
    what = verdict.refused or "requests"
    wait_s = max(1, math.ceil(verdict.retry_after_s))
    return RateLimited(
        f"This API key has reached its limit of {_WHAT[what]}. Try again in {wait_s} s.",
        retry_after_s=wait_s,
    )
