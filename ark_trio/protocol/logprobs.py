"""Log probabilities in OpenAI's shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ark_trio.errors import BadBackend

LOWEST: Final = -9999.0
"""Stands for minus infinity, which JSON can't spell."""


def token_entries(logprobs: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the tokens' entries from what an engine sent as `logprobs`, decoded to plain Python; None has none.

    Raises:
        BadBackend: it has another shape.
    """
    if logprobs is None:
        return ()
    if not isinstance(logprobs, dict):
        raise _malformed()
    return tuple(
        {**_entry(entry), "top_logprobs": [_entry(other) for other in _list(entry, "top_logprobs")]}
        for entry in _list(logprobs, "content")
    )


def chat_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return `logprobs` of a chat answer; engines tell refusals as text."""
    return {"content": entries, "refusal": None} if entries else None


def _entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        raise _malformed()
    logprob = entry.get("logprob")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise _malformed()
    # Written so that NaN becomes the lowest too.
    clamped = float(logprob) if logprob > LOWEST else LOWEST
    return {"token": entry["token"], "logprob": clamped, "bytes": _bytes(entry.get("bytes"))}


def _bytes(raw: Any) -> list[int] | None:
    if raw is None:
        return None
    if isinstance(raw, bytes):
        return list(raw)
    if not isinstance(raw, list) or not all(type(byte) is int for byte in raw):
        raise _malformed()
    return raw


def _list(holder: dict[str, Any], key: str) -> list[Any]:
    items = holder.get(key)
    if items is None:
        return []
    if not isinstance(items, list):
        raise _malformed()
    return items


def _malformed() -> BadBackend:
    return BadBackend("The engine sent malformed log probabilities.")
