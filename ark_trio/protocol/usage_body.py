"""Token totals as OpenAI spells them, with DeepSeek's cache accounting beside them."""

from typing import Any

from ark_trio.protocol.step import Usage


def usage_body(usage: Usage | None) -> dict[str, Any] | None:
    """Return the usage object, or None when the engine told nothing: no count is made up.

    For the same reason the details are left out where the engine doesn't say.
    """
    if usage is None:
        return None
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens is not None:
        body["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
        body["prompt_cache_hit_tokens"] = usage.cached_tokens
        body["prompt_cache_miss_tokens"] = max(0, usage.prompt_tokens - usage.cached_tokens)
    if usage.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body
