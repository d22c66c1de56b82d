"""How much of a text can't be passed on yet, because the next piece may turn its end into a marker.

All markers here begin with `<` or `[`, which is tested first: it spares every other token the search.
"""

from collections.abc import Collection


def held_from(text: str, markers: Collection[str]) -> int:
    """Return where the longest end of `text` begins that is the beginning of a marker; its length if there is none."""
    longest = max(map(len, markers)) - 1
    for start in range(max(0, len(text) - longest), len(text)):
        if text[start] in "<[" and any(marker.startswith(text[start:]) for marker in markers):
            return start
    return len(text)


def first_of(text: str, markers: Collection[str]) -> tuple[int, str] | None:
    """Return where the first marker in `text` begins, and which it is (the longest, where two begin together)."""
    found = [(at, -len(marker), marker) for marker in markers if (at := text.find(marker)) >= 0]
    if not found:
        return None
    at, _, marker = min(found)
    return at, marker
