"""Token totals in an engine's message: nested or flat, with every message, the last only, or never."""

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
        usage = read_fields(outputs.get("usage"), "usage")
        if usage is not None:
            prompt = read_count(usage.get("prompt_tokens"), "usage.prompt_tokens")
            completion = read_count(usage.get("completion_tokens"), "usage.completion_tokens")
        else:
            prompt = read_count(outputs.get("usage.prompt_tokens"), "usage.prompt_tokens")
            completion = read_count(
                outputs.get("usage.completion_tokens"), "usage.completion_tokens"
            )
        cached = _cached_tokens(outputs)
        if usage is None or (prompt is None and completion is None):
            return self.add(prompt, completion, None, cached)
        reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
        if cached is None:
            cached = _detail(usage, "prompt_tokens_details", "cached_tokens")
        return self.add(prompt, completion, reasoning, cached)

    def add(
        self, prompt: int | None, completion: int | None, reasoning: int | None, cached: int | None
    ) -> Usage | None:
        """Take what a message tells, None where it tells nothing. Returns as `read`."""
        if prompt is not None or completion is not None:
            self._told = True
        elif cached is None:
            return None
        known = self._known
        self._known = usage = Usage(
            prompt_tokens=known.prompt_tokens if prompt is None else prompt,
            completion_tokens=known.completion_tokens if completion is None else completion,
            reasoning_tokens=known.reasoning_tokens if reasoning is None else reasoning,
            cached_tokens=known.cached_tokens if cached is None else cached,
        )
        return usage if self._told else None


def _detail(usage: Fields, group: str, name: str) -> int | None:
    details = read_fields(usage.get(group), group)
    return None if details is None else read_count(details.get(name), name)


def _cached_tokens(outputs: Fields) -> int | None:
    cache = read_fields(outputs.get("cache"), "cache")
    if cache is not None:
        hits = cache.get("prompt_cache_hit_tokens")
    else:
        hits = outputs.get("cache.prompt_cache_hit_tokens")
    return read_count(hits, "cache.prompt_cache_hit_tokens")
