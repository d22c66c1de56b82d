"""How an engine's calls went: what GetStatus tells, so that anyone can see over the wire that a call was given up."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio
from attrs import define

REMEMBERED = 256
TOLD = 16
ENDINGS = ("finished", "failed", "cancelled")


@define
class CallRecord:
    """One call."""

    req_id: str
    ended: str = "running"
    """running, finished, failed or cancelled."""
    sent: int = 0
    """Messages handed over."""
    seconds: float = 0.0
    """From the request's arrival to the call's end."""


class Ledger:
    """The calls that run, and how the last ones ended."""

    def __init__(self) -> None:
        self.running = 0
        self._last: deque[CallRecord] = deque(maxlen=REMEMBERED)
        self._ends = Counter[str]()

    @contextmanager
    def record(self, req_id: str) -> Iterator[CallRecord]:
        """Keep the record of one call while the block runs; how the block ends is how the call ended."""
        record = CallRecord(req_id)
        self._last.append(record)
        self.running += 1
        began = trio.current_time()
        ended = "failed"
        try:
            yield record
            ended = "finished"
        except trio.Cancelled:
            ended = "cancelled"
            raise
        except BaseExceptionGroup as group:
            # So it comes out of a nursery that the call holds. Beside anything else, that counts.
            ended = "failed" if group.split(trio.Cancelled)[1] else "cancelled"
            raise
        finally:
            self.running -= 1
            record.ended = ended
            record.seconds = trio.current_time() - began
            self._ends[ended] += 1

    def outputs(self, req_id: str | None = None) -> dict[str, Any]:
        """Return GetStatus outputs: totals by ending and the last calls, or only those of `req_id`."""
        calls = [call for call in self._last if req_id is None or call.req_id == req_id]
        return {
            "finished": self._ends["finished"],
            "failed": self._ends["failed"],
            "cancelled": self._ends["cancelled"],
            "last_req_id": self._last[-1].req_id if self._last else "",
            "calls": [attrs.asdict(call) for call in calls[-TOLD:]],
        }

    def totals(self) -> dict[str, float]:
        """Return PullMetrics outputs: how many calls have ended in each way."""
        return {f"calls_{ended}_total": float(self._ends[ended]) for ended in ENDINGS}
