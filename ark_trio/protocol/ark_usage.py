"""Token totals in an engine's message: nested or flat, with every message, the last only, or never."""

from attrs import evolve

from ark_trio.protocol.ark_fields import Fields, read_count, read_fields
from ark_trio.protocol.step import Usage


class Totals:
    """The totals so far. Messages may tell parts of them; what they don't tell stays."""

    def __init__(self) -> None:
        self._known = Usage()
        self._told = False
        """Some message has told prompt or completion tokens: without them there is nothing to report."""

    def read(self, outputs: Fields) -> Usage | None:
        """Return the totals if this message changes or repeats them, else None."""
        told = self._read_usage(outputs)
        cached = _cached_tokens(outputs)
        if cached is not None:
            self._known = evolve(self._known, cached_tokens=cached)
        self._told = self._told or told
        return self._known if told or (cached is not None and self._told) else None

    def _read_usage(self, outputs: Fields) -> bool:
        usage = read_fields(outputs.get("usage"), "usage")
        if usage is not None:
            prompt = read_count(usage.get("prompt_tokens"), "usage.prompt_tokens")
            completion = read_count(usage.get("completion_tokens"), "usage.completion_tokens")
        else:
            prompt = read_count(outputs.get("usage.prompt_tokens"), "usage.prompt_tokens")
            completion = read_count(
                outputs.get("usage.completion_tokens"), "usage.completion_tokens"
            )
        if prompt is None and completion is None:
            return False
        known = self._known
        reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
        cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
        self._known = Usage(
            prompt_tokens=known.prompt_tokens if prompt is None else prompt,
            completion_tokens=known.completion_tokens if completion is None else completion,
            reasoning_tokens=known.reasoning_tokens if reasoning is None else reasoning,
            cached_tokens=known.cached_tokens if cached is None else cached,
        )
        return True


def _detail(usage: Fields | None, group: str, name: str) -> int | None:
    if usage is None or group not in usage:
        return None
    details = read_fields(usage.get(group), group)
    return None if details is None else read_count(details.get(name), name)


def _cached_tokens(outputs: Fields) -> int | None:
    cache = read_fields(outputs.get("cache"), "cache")
    if cache is not None:
        hits = cache.get("prompt_cache_hit_tokens")
    else:
        hits = outputs.get("cache.prompt_cache_hit_tokens")
    return read_count(hits, "cache.prompt_cache_hit_tokens")
