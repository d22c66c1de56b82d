"""What the parts of a schema's translation ask of the whole."""

from typing import Any, Never, Protocol

from ark_trio.engine.llama.grammar.expression import Expression, Ref


class Unsupported(Exception):
    """What can't be held to. The text says why, for the client."""


class Writer(Protocol):
    """Writes one schema's rules. A place is a JSON pointer, for messages."""

    def write(self, schema: Any, place: str, depth: int) -> Expression:
        """Return what is valid under `schema`."""

    def named(self, expression: Expression) -> Ref:
        """Make a rule of an expression that is used more than once."""

    def never(self, place: str, why: str) -> Expression:
        """Note a contradiction; the schema is refused if it can't be avoided."""

    def refuse(self, place: str, why: str) -> Never:
        """Refuse the schema."""
