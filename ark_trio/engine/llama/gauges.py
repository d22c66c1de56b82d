"""What the engine has done since its start, by llama.cpp's own timings: what GetStatus and PullMetrics tell."""

from collections import deque
from typing import Any

import trio
from attrs import define, field, frozen

WINDOW_S = 60.0
"""What a rate is taken over."""
_MAX_EVENTS = 4096


@frozen(kw_only=True)
class Transferred:
    """One KV state, moved."""

    bytes: int
    ms: float
    """From the end of its computation to its place."""


@define
class Rate:
    """Something per second over the last minute, or since the start if that is less."""

    _began: float = field(factory=trio.current_time)
    _events: deque[tuple[float, int]] = field(factory=lambda: deque(maxlen=_MAX_EVENTS))

    def add(self, count: int) -> None:
        """Count what has just happened."""
        self._events.append((trio.current_time(), count))

    @property
    def per_s(self) -> float:
        """The rate."""
        now = trio.current_time()
        since = max(self._began, now - WINDOW_S)
        if len(self._events) == _MAX_EVENTS:
            since = max(since, self._events[0][0])
        total = sum(count for at, count in self._events if at >= since)
        return total / max(1.0, now - since)


@define
class Gauges:
    """Totals and rates."""

    prompt_tokens_evaluated: int = 0
    last_prompt_evaluated: int = 0
    prefill_ms: float = 0.0
    completion_tokens: int = 0
    decode_ms: float = 0.0
    kv_bytes: int = 0
    """Bytes of KV states sent (prefiller) or received (decoder)."""
    transfers: int = 0
    transfer_ms: float = 0.0
    last_transfer_ms: float = 0.0
    _prefilled: Rate = field(factory=Rate)
    _decoded: Rate = field(factory=Rate)

    def prompt(self, evaluated: int, ms: float) -> None:
        """Count prompt tokens that were evaluated."""
        self.prompt_tokens_evaluated += evaluated
        self.last_prompt_evaluated = evaluated
        self.prefill_ms += ms
        self._prefilled.add(evaluated)

    def completion(self, tokens: int, ms: float) -> None:
        """Count tokens that were generated."""
        self.completion_tokens += tokens
        self.decode_ms += ms
        self._decoded.add(tokens)

    def moved(self, state: Transferred) -> None:
        """Count a state that was sent or received."""
        self.kv_bytes += state.bytes
        self.transfers += 1
        self.transfer_ms += state.ms
        self.last_transfer_ms = state.ms

    def totals(self) -> dict[str, Any]:
        """Return what GetStatus tells of it."""
        return {
            "prompt_tokens_evaluated": self.prompt_tokens_evaluated,
            "last_prompt_evaluated": self.last_prompt_evaluated,
            "completion_tokens": self.completion_tokens,
            "kv_bytes": self.kv_bytes,
        }

    def metrics(self) -> dict[str, float]:
        """Return what PullMetrics tells of it: totals only grow, times are in milliseconds."""
        return {
            "prompt_tokens_total": float(self.prompt_tokens_evaluated),
            "prefill_ms_total": self.prefill_ms,
            "prefill_tokens_per_s": self._prefilled.per_s,
            "completion_tokens_total": float(self.completion_tokens),
            "decode_ms_total": self.decode_ms,
            "decode_tokens_per_s": self._decoded.per_s,
            "kv_bytes_total": float(self.kv_bytes),
            "kv_transfers_total": float(self.transfers),
            "kv_transfer_ms_total": self.transfer_ms,
            "kv_transfer_ms_last": self.last_transfer_ms,
        }
