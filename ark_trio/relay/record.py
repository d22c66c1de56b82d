"""What is known of one request, from its first byte to its end: one log line each, and what the metrics count of it."""

from collections.abc import Callable
from typing import Literal

import structlog
import trio
from attrs import define, field

from ark_trio.errors import ArkError
from ark_trio.metrics.catalogue import BETWEEN_TOKENS
from ark_trio.metrics.labels import ModelNames
from ark_trio.metrics.tally import Distribution, Tally
from ark_trio.protocol.step import Usage

log = structlog.get_logger()

COMPLETED = "completed"
CLIENT_GONE = "client_gone"
CLIENT_GONE_STATUS = 499

Judge = Callable[[ArkError | None], None]
Phase = Literal["received", "queued", "prefill", "decode"]
"""How far a request has come: being read and checked; in line; given to an engine that has said nothing yet; answered."""

QUIET_PATHS = ("/livez", "/health", "/readyz", "/metrics", "/admin/status")
"""Asked again and again by machines; where that goes well it is worth no line but at debug."""


@define(kw_only=True, eq=False)
class Record:
    """One request's log line in the making. Owned by the connection, which writes it when the request is over.

    Times are Trio's clock; None: not yet.
    """

    request_id: str
    method: str
    path: str
    client: str | None = None
    """The client's address, where the settings want it in the log."""
    body: str | None = None
    """What it asks, where the settings want that in the log."""
    key: str | None = None
    """Name of the key that it came with."""
    model: str | None = None
    stream: bool | None = None
    status: int | None = None
    outcome: str | None = None
    phase: Phase = "received"
    decoder: str | None = None
    """The decoder that was asked last."""
    retries: int = 0
    usage: Usage | None = None
    """The engine's last word on tokens."""
    messages: int = 0
    """Of the engine, so far: what stands for the tokens of an answer that ended before the engine told its usage."""
    judge: Judge | None = None
    """Takes how the answer ended that a decoder has begun; None: it knows already."""
    started: float = field(factory=trio.current_time)
    taken: float | None = None
    """When its body was there: what came before is the client's pace."""
    queued: float | None = None
    """When it got into the line."""
    placed: float | None = None
    """When it got its place."""
    asked: float | None = None
    """When it was given to an engine."""
    first_token: float | None = None
    answered: float | None = None
    """When the answer's first bytes after that were written."""
    tally: Tally = field(factory=Tally)
    """Where it is counted."""
    models: ModelNames = field(factory=ModelNames)
    _gaps: Distribution | None = None
    _last_taken: float = 0.0

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answer, as far as is known."""
        return self.messages if self.usage is None else self.usage.completion_tokens

    @property
    def age_s(self) -> float:
        """Time since it arrived."""
        return trio.current_time() - self.started

    @property
    def overhead_s(self) -> float | None:
        """The gateway's own part of the time to the first token, the line left out; None: it did not come so far."""
        if self.queued is None or self.placed is None or self.asked is None:
            return None
        own_s = self.queued - (self.taken or self.started) + self.asked - self.placed
        if self.first_token is not None and self.answered is not None:
            own_s += self.answered - self.first_token
        return own_s

    def queue(self) -> None:
        """Say that it waits for a place."""
        if self.queued is None:
            self.phase = "queued"
            self.queued = trio.current_time()

    def place(self) -> None:
        """Say that it has got its place."""
        if self.placed is None:
            self.placed = trio.current_time()

    def ask(self, decoder: str, judge: Judge | None = None) -> None:
        """Say that it is given to a decoder. A request that makes several calls is with an engine once the first is."""
        self.judge = judge
        if self.phase != "decode":
            self.phase = "prefill"
        self.decoder = decoder
        if self.asked is None:
            self.asked = trio.current_time()
            if self.model is not None:
                self.models.learn(self.model)
            self._gaps = self.tally.distribution(BETWEEN_TOKENS, self.models.label(self.model))

    def arrive(self, count: int, first: float, taken: float) -> None:
        """Say that so many messages of the engine were taken at `taken`, of which the first came at `first`."""
        if self.first_token is None:
            self.phase = "decode"
            self.first_token = first
        elif self._gaps is not None:
            # From the taking, not the arrival: how long a slow client let messages lie is not the engine's doing.
            self._gaps.add(first - self._last_taken)
        self._last_taken = taken
        self.messages += count

    def end(self, outcome: str) -> None:
        """Say how the request ended. Only the first word counts: a request ends once."""
        if self.outcome is None:
            self.outcome = outcome
            if outcome == COMPLETED:
                self._tell_decoder(None)

    def end_failed(self, error: ArkError) -> None:
        """Say that the request ended with `error`."""
        if self.outcome is None:
            self._tell_decoder(error)
        self.end(error.outcome)

    def _tell_decoder(self, error: ArkError | None) -> None:
        if self.judge is not None:
            self.judge(error)
            self.judge = None

    @property
    def left(self) -> bool:
        """Whether it ended because its client is no longer there."""
        return self.status == CLIENT_GONE_STATUS

    def end_left(self, outcome: str = CLIENT_GONE) -> None:
        """Say that the request ended because its client is no longer there."""
        if self.outcome is None:
            self.outcome = outcome
            self.status = CLIENT_GONE_STATUS

    def write(self) -> None:
        """Write the line. If nobody said how it ended, the client left."""
        self.end_left()
        quiet = self.path in QUIET_PATHS and self.outcome == COMPLETED
        tell = log.debug if quiet else log.info
        tell("request_ended", **self._fields())

    def _fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"request_id": self.request_id}
        if self.client is not None:
            fields["client"] = self.client
        if self.body is not None:
            fields["body"] = self.body
        usage = self.usage
        fields |= {
            "method": self.method,
            "path": self.path[:_PATH_CHARS],
            "key": self.key,
            "status": self.status,
            "outcome": self.outcome,
            "model": self.model,
            "stream": self.stream,
            "decoder": self.decoder,
            "retries": self.retries,
            "prompt_tokens": usage and usage.prompt_tokens,
            "cached_tokens": usage and usage.cached_tokens,
            "completion_tokens": usage and usage.completion_tokens,
            "reasoning_tokens": usage and usage.reasoning_tokens,
            "queue_s": _between(self.queued, self.placed),
            "first_token_s": _between(self.started, self.first_token),
            "total_s": round(self.age_s, 4),
        }
        return fields


_PATH_CHARS = 200
"""What the log keeps of a path: whoever calls may send any."""


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(end - start, 4)
