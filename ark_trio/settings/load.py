"""File, environment and command line laid over one another."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
from attrs import frozen

from ark_trio.errors import ConfigError
from ark_trio.settings.declare import Row, rows
from ark_trio.settings.inherited import (
    inherited_decoders,
    inherited_keys,
    inherited_prefillers,
)
from ark_trio.settings.parse import parse_path, parse_setting

FILE_VARIABLE = "ARK_CONFIG"

S = TypeVar("S")


@frozen(kw_only=True)
class Loaded(Generic[S]):
    """Settings, and where each came from."""

    settings: S
    sources: Mapping[str, str]
    """By dotted key: `default`, the file's path, a variable, or a flag."""


def load(
    settings_class: type[S],
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    toml_path: Path | None,
) -> Loaded[S]:
    """Read all settings of a class; see `ark_trio.config.load_settings`."""
    table = tuple(rows(settings_class))
    _refuse_unknown_overrides(overrides, table)
    file_path = toml_path or _named_file(environ)
    in_file = dict(_file_values(file_path, table)) if file_path else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for row in table:
        values[row.key], sources[row.key] = _pick(row, overrides, environ, (file_path, in_file))
    _apply_inherited(environ, values, sources, {row.key: row for row in table})
    unknown = _unknown_variables(environ, table)
    return Loaded(settings=_build(settings_class, values, unknown), sources=sources)


def _pick(
    row: Row,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    file: tuple[Path | None, Mapping[str, object]],
) -> tuple[Any, str]:
    path, in_file = file
    if row.key in overrides:
        return parse_setting(row, overrides[row.key], row.flag), row.flag
    # An empty variable counts as unset: that is how compose files and units pass on what isn't there.
    if environ.get(row.env, "").strip():
        return parse_setting(row, environ[row.env], row.env), row.env
    if row.key in in_file:
        return parse_setting(row, in_file[row.key], str(path)), str(path)
    return row.default, "default"


def _apply_inherited(
    environ: Mapping[str, str],
    values: dict[str, Any],
    sources: dict[str, str],
    table: Mapping[str, Row],
) -> None:
    """Others' variables give way to the flag and to our own variable, but come before the file."""
    for key, found in (
        ("decoders", inherited_decoders(environ)),
        ("prefillers", inherited_prefillers(environ, values)),
        ("keys_file", inherited_keys(environ)),
    ):
        row = table.get(key)
        if found and row and sources[key] not in {row.flag, row.env}:
            values[key], sources[key] = found


def _refuse_unknown_overrides(overrides: Mapping[str, str], table: tuple[Row, ...]) -> None:
    for key in overrides.keys() - {row.key for row in table}:
        raise ConfigError(f"command line: {key!r} is no setting; `ark-trio config` lists them")


def _named_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(FILE_VARIABLE, "").strip()
    try:
        return parse_path(named) if named else None
    except ValueError as error:
        raise ConfigError(f"{FILE_VARIABLE} = {named[:80]!r}: expected a path") from error


def _file_values(path: Path, table: tuple[Row, ...]) -> Iterator[tuple[str, object]]:
    known = {row.key for row in table}
    sections = {row.section for row in table if row.section}
    for name, value in _read(path).items():
        entries = {name: value}
        if name in sections:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {name}: expected a table, [{name}]")
            entries = {f"{name}.{inner}": each for inner, each in value.items()}
        for key, each in entries.items():
            if key not in known:
                raise ConfigError(
                    f"{path}: {key[:80]!r} is no setting; `ark-trio config` lists them"
                )
            yield key, each


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def _unknown_variables(environ: Mapping[str, str], table: tuple[Row, ...]) -> tuple[str, ...]:
    known = {row.env for row in table} | {FILE_VARIABLE}
    return tuple(sorted(name for name in environ if name.startswith("ARK_") and name not in known))


def _build(settings_class: type[S], values: Mapping[str, Any], unknown: tuple[str, ...]) -> S:
    parts: dict[str, Any] = {}
    for part in attrs.fields(settings_class):  # type: ignore[arg-type]  # S is an attrs class; not expressible
        if part.name in values:
            parts[part.name] = values[part.name]
        elif part.name == "unknown_variables":
            parts[part.name] = unknown
        elif part.type is not None and attrs.has(part.type):
            inner = {
                name.name: values[f"{part.name}.{name.name}"] for name in attrs.fields(part.type)
            }
            parts[part.name] = part.type(**inner)
    return settings_class(**parts)
