"""A setting is declared once, where its field is: name, variable, flag, default, range and help are read from there."""

from collections.abc import Iterator
from typing import Any, Literal

import attrs
from attrs import field, frozen

Role = Literal["proxy", "prefiller", "decoder"]
ALL_ROLES: tuple[Role, ...] = ("proxy", "prefiller", "decoder")

_KEY = "ark_trio.setting"


@frozen(kw_only=True)
class Spec:
    """What the declaration says beyond the field's own name, type and default."""

    help: str
    name: str | None
    at_least: float | None
    at_most: float | None
    default_port: int | None
    default_text: str | None
    secret: bool
    also: tuple[str, ...]
    roles: tuple[Role, ...]


@frozen(kw_only=True)
class Row:
    """One setting, as parsing, help, `ark-trio config` and the documentation see it."""

    section: str
    """Its TOML table; empty for the top level."""
    field: str
    type: Any
    default: Any
    spec: Spec

    @property
    def key(self) -> str:
        """Its TOML key, dotted: what identifies a setting everywhere."""
        return f"{self.section}.{self.field}" if self.section else self.field

    @property
    def name(self) -> str:
        """Its short name, from which the variable and the flag come."""
        return self.spec.name or self.field

    @property
    def env(self) -> str:
        """Its environment variable."""
        return f"ARK_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return "--" + self.name.replace("_", "-")


def setting(  # noqa: PLR0913 (one keyword a property; all optional)
    default: Any,
    help: str,  # noqa: A002
    *,
    name: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    default_port: int | None = None,
    default_text: str | None = None,
    secret: bool = False,
    also: tuple[str, ...] = (),
    roles: tuple[Role, ...] = ALL_ROLES,
) -> Any:
    """Declare a setting as a field of an attrs class.

    Args:
        default: its value when nothing sets it.
        help: one sentence for `--help` and the documentation.
        name: short name, when the field's own is not unique or not what users type.
        at_least: smallest number allowed.
        at_most: largest number allowed.
        default_port: port of a listed address that names none.
        default_text: what the documentation says in place of the default's value.
        secret: never shown.
        also: further variables that it is read from, for the documentation.
        roles: commands whose help lists its flag.
    """
    spec = Spec(
        help=help,
        name=name,
        at_least=at_least,
        at_most=at_most,
        default_port=default_port,
        default_text=default_text,
        secret=secret,
        also=also,
        roles=roles,
    )
    return field(default=default, metadata={_KEY: spec})


def rows(settings_class: type) -> Iterator[Row]:
    """Every setting of a class, its own first, then those of its sections."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(settings_class)
    for part in fields:
        if _KEY in part.metadata:
            yield _row("", part)
    for part in fields:
        if part.type is not None and attrs.has(part.type) and _KEY not in part.metadata:
            inner: tuple[attrs.Attribute[Any], ...] = attrs.fields(part.type)
            yield from (_row(part.name, each) for each in inner if _KEY in each.metadata)


def _row(section: str, part: "attrs.Attribute[Any]") -> Row:
    return Row(
        section=section,
        field=part.name,
        type=part.type,
        default=part.default,
        spec=part.metadata[_KEY],
    )
