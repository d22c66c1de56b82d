"""The headers of a request, looked up as they came: ASGI's names in lower case, values read as Latin-1."""

from collections.abc import Iterable


class RequestHeaders:
    """One request's. Names are given in lower case."""

    __slots__ = ("_all", "_first")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._all = [*headers]
        self._first = dict(reversed(self._all))

    def __contains__(self, name: bytes) -> bool:
        return name in self._first

    def get(self, name: bytes) -> str | None:
        """Return the first value of this name; None: there is none."""
        value = self._first.get(name)
        return None if value is None else value.decode("latin-1")

    def getlist(self, name: bytes) -> list[str]:
        """Return all values of this name."""
        if name not in self._first:
            return []
        return [value.decode("latin-1") for key, value in self._all if key == name]
