"""Settings shown: as a table of documentation, and as effective values with their sources."""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from ark_trio.settings.declare import Row, rows
from ark_trio.settings.parse import ByteCount, expected

_MASK = "••••••"


def markdown_table(settings_class: type) -> str:
    """One row a setting: TOML key, variable, flag, default, what it takes, what it does."""
    head = ["TOML key", "variable", "flag", "default", "takes", "what it does"]
    lines = [head, ["---"] * len(head)]
    lines += [_cells(row) for row in rows(settings_class)]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def effective_lines(settings: Any, sources: Mapping[str, str]) -> Iterator[str]:
    """One line a setting: key, value, source. Secrets are masked."""
    table = tuple(rows(type(settings)))
    shown = [(row.key, _shown(row, attrgetter(row.key)(settings))) for row in table]
    widths = [max(len(pair[column]) for pair in shown) for column in (0, 1)]
    for key, value in shown:
        yield f"{key:{widths[0]}}  {value:{widths[1]}}  {sources[key]}"


def spell(value: Any) -> str:
    """A value as a flag or variable would spell it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_text(row: Row) -> str:
    """A default in words."""
    if row.spec.default_text is not None:
        return row.spec.default_text
    if row.type == ByteCount:
        return _size(row.default)
    text = spell(row.default)
    return text if isinstance(row.default, (Path, bool)) or text else "none"


def _cells(row: Row) -> list[str]:
    variables = ", ".join(f"`{name}`" for name in (row.env, *row.spec.also))
    default = default_text(row)
    shown = default if row.spec.default_text is not None else f"`{default}`"
    return [f"`{row.key}`", variables, f"`{row.flag}`", shown, expected(row), row.spec.help]


def _shown(row: Row, value: Any) -> str:
    if row.spec.secret and value:
        return _MASK
    if row.type == ByteCount:
        return _size(value)
    return spell(value) or "(none)"


def _size(count: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
