"""What is known of one request, and how it ended: one log line each."""

import math

import structlog
import trio
from attrs import define, field

from ark_trio.errors import ArkError

log = structlog.get_logger()

COMPLETED = "completed"
CLIENT_GONE = "client_gone"
CLIENT_GONE_STATUS = 499


@define(kw_only=True, eq=False)
class Record:
    """One request's log line in the making. Owned by the connection, which writes it when the request is over."""

    request_id: str
    method: str
    path: str
    model: str | None = None
    stream: bool | None = None
    status: int | None = None
    outcome: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    started: float = field(factory=trio.current_time)
    first_token: float = math.nan

    def end(self, outcome: str) -> None:
        """Say how the request ended. Only the first word counts: a request ends once."""
        if self.outcome is None:
            self.outcome = outcome

    def end_failed(self, error: ArkError) -> None:
        """Say that the request ended with `error`."""
        self.end(error.outcome)

    def end_left(self, outcome: str = CLIENT_GONE) -> None:
        """Say that the request ended because its client is no longer there."""
        if self.outcome is None:
            self.outcome = outcome
            self.status = CLIENT_GONE_STATUS

    def write(self) -> None:
        """Write the line. If nobody said how it ended, the client left."""
        self.end_left()
        now = trio.current_time()
        log.info(
            "request_ended",
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            status=self.status,
            outcome=self.outcome,
            model=self.model,
            stream=self.stream,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            first_token_s=None
            if math.isnan(self.first_token)
            else round(self.first_token - self.started, 4),
            total_s=round(now - self.started, 4),
        )
