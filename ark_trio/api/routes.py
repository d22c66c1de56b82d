"""Which handler answers what; each family of the API has a table of its own."""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

from attrs import define, field

from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply

P = ParamSpec("P")
Handler = Callable[[Exchange], Awaitable[Reply]]
View = Callable[Concatenate[Exchange, ...], Awaitable[Reply]]
"""A handler that also takes what its path holds."""
_Taken = Callable[Concatenate[Exchange, P], Awaitable[Reply]]


@define
class Routes:
    """One family's."""

    table: list[tuple[str, str, View]] = field(factory=list)
    """Method, Quart's rule of the path, and who answers."""

    def get(self, *rules: str) -> Callable[[_Taken[P]], _Taken[P]]:
        """Have a handler answer GET (and HEAD) at these paths."""
        return self._add("GET", rules)

    def post(self, *rules: str) -> Callable[[_Taken[P]], _Taken[P]]:
        """Have a handler answer POST at these paths."""
        return self._add("POST", rules)

    def _add(self, method: str, rules: tuple[str, ...]) -> Callable[[_Taken[P]], _Taken[P]]:
        def add(handler: _Taken[P]) -> _Taken[P]:
            self.table.extend((method, rule, handler) for rule in rules)
            return handler

        return add
