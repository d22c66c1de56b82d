"""How a connection ended, for the requests that end with it."""

from collections.abc import Mapping
from typing import Any

from attrs import define

KEY = "ark.fate"
"""Of the connection's `Fate` in each request's `scope["state"]`."""
CLIENT_STALLED = "client_stalled"


@define
class Fate:
    """What the connection has to say to its requests."""

    outcome: str | None = None
    """None: the client left."""


def note(state: Mapping[str, Any], outcome: str) -> None:
    """Note how the connection ends, in the state that its requests get."""
    fate = state.get(KEY)
    if isinstance(fate, Fate) and fate.outcome is None:
        fate.outcome = outcome


def outcome_of(scope: Mapping[str, Any]) -> str | None:
    """Return why the connection of a request ended, if it was not the client's doing."""
    fate = (scope.get("state") or {}).get(KEY)
    return fate.outcome if isinstance(fate, Fate) else None
