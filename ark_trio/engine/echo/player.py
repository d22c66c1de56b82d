"""Plays one script into one outbox, a step at a time."""

from itertools import islice

from ark_trio.engine.echo.lines import Ask, garbage, say
from ark_trio.engine.echo.script import FAILURES, Script
from ark_trio.engine.ledger import CallRecord
from ark_trio.errors import ArkError
from ark_trio.rpc.outbox import Outbox


class Player:
    """Where one stream stands in its script."""

    def __init__(self, script: Script, ask: Ask, outbox: Outbox, record: CallRecord) -> None:
        self._script = script
        self._ask = ask
        self._outbox = outbox
        self._record = record
        self._lines = say(script, ask)
        self.ended = False
        """All is said, or `error` happened."""
        self.hangs = False
        """Nothing more will be said, and no end either."""
        self.error: ArkError | None = None

    def step(self) -> bool:
        """Say a burst; False: the end, a hang, or the outbox is full. Doesn't raise."""
        for _ in range(self._script.burst):
            if self._stops():
                return False
            if self._record.sent == self._script.garbage_at:
                message = garbage(self._script, self._ask)
            else:
                following = list(islice(self._lines, 1))
                if not following:
                    self.ended = True
                    return False
                message = following[0]
            self._record.sent += 1
            if not self._outbox.offer(message):
                return False
        return not self._stops()

    def _stops(self) -> bool:
        sent = self._record.sent
        if sent == self._script.fail_at:
            kind = FAILURES[self._script.status]
            self.error = kind(
                self._script.message, code=self._script.code, param=self._script.param
            )
            self.ended = True
        self.hangs = sent == self._script.hang_at
        return self.ended or self.hangs
