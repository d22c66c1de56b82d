"""From what a file, a variable or a flag says to a setting's typed value.

A TOML file gives numbers, booleans and lists; variables and flags give text. Both spellings are read everywhere.
"""

import operator
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from cattrs import Converter

from ark_trio.errors import ConfigError
from ark_trio.settings.address import Address, Bind, parse_address, parse_bind, parse_target
from ark_trio.settings.declare import Row

Seconds = Annotated[float, "seconds"]
"""A duration; text may carry ms, s, m or h."""
ByteCount = Annotated[int, "bytes"]
"""A size; text may carry KiB, MiB or GiB."""
ReasoningMarks = Annotated[tuple[str, ...], "reasoning"]
"""How models mark their reasoning, as `MODEL=MARK`; `*` is every other model."""
ToolSyntaxes = Annotated[tuple[str, ...], "tools"]
"""How models write tool calls, as `MODEL=SYNTAX`; `*` is every other model."""

ModelAliases = Annotated[tuple[str, ...], "aliases"]
"""Other names of models, as `ALIAS=MODEL`."""

_MARKS = ("auto", "open", "off")
_SYNTAXES = ("auto", "deepseek", "hermes", "mistral", "json", "off")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_DURATION_UNITS = {None: 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB)?")
_SIZE_UNITS = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_NONE = frozenset({"none", "off"})
_ECHO_CHARS = 80
_MAX_SECONDS = 1e6
"""More is a mistake; and as milliseconds it must fit the 31 bits of socket options."""


def parse_setting(row: Row, raw: object, source: str) -> Any:
    """The value that `raw` spells for this setting.

    Raises:
        ConfigError: one line that names the setting, where the value came from, and what was expected.
    """
    try:
        value = _structure(row, raw)
        _check_range(row, value)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{source}: {row.key} = {_echo(row, raw)}: expected {expected(row)}"
        ) from error
    return value


def expected(row: Row) -> str:
    """What a setting takes, in words, with its range."""
    inner = _not_none(row.type)
    words = _WORDS.get(inner) or "one of " + ", ".join(get_args(inner))
    ending = ", or none" if NoneType in get_args(row.type) else ""
    return words + _bounds(row) + ending


def _bounds(row: Row) -> str:
    low, high = row.spec.at_least, row.spec.at_most
    if get_origin(row.type) is tuple:
        return ", at least one" if low else ""
    bounds = [
        f"{word} {_number(limit)}"
        for word, limit in (("at least", low), ("at most", high))
        if limit is not None
    ]
    return " ".join(["", " and ".join(bounds)]).rstrip()


def _number(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _structure(row: Row, raw: object) -> Any:
    if row.spec.default_port is not None:
        return tuple(_target(item, row.spec.default_port) for item in _items(raw))
    return _converter.structure(raw, row.type)


def _check_range(row: Row, value: Any) -> None:
    size = len(value) if isinstance(value, tuple) else value
    if size is None:
        return
    if row.spec.at_least is not None and size < row.spec.at_least:
        raise ValueError("too small")
    if row.spec.at_most is not None and size > row.spec.at_most:
        raise ValueError("too large")


def _echo(row: Row, raw: object) -> str:
    if row.spec.secret:
        return "(hidden)"
    text = repr(raw)
    return text if len(text) <= _ECHO_CHARS else text[:_ECHO_CHARS] + "…"


def _not_none(kind: Any) -> Any:
    options = [each for each in get_args(kind) if each is not NoneType]
    return options[0] if NoneType in get_args(kind) else kind


def _text(raw: object) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("not a text")
    return raw.strip()


def _whole(raw: object) -> int:
    if isinstance(raw, str) and raw.strip().isascii():
        return int(raw.strip())
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise ValueError("not a whole number")


def _truth(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    text = _text(raw).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("neither yes nor no")
    return text in _TRUE


def _seconds(raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        seconds = float(raw)
    elif match := _DURATION.fullmatch(_text(raw)):
        seconds = float(match[1]) * _DURATION_UNITS[match[2]]
    else:
        raise ValueError("not a duration")
    if not abs(seconds) <= _MAX_SECONDS:  # false for nan too
        raise ValueError("too long")
    return seconds


def _byte_count(raw: object) -> int:
    if isinstance(raw, str) and (match := _SIZE.fullmatch(raw.strip())):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    return _whole(raw)


def _items(raw: object) -> list[str]:
    """The entries of a TOML list or of a comma-separated text; the empty text is the empty list."""
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if isinstance(raw, list):
        return [_text(item) for item in raw]
    raise ValueError("not a list")


def _per_model(words: tuple[str, ...]) -> Callable[[object], tuple[str, ...]]:
    def parse(raw: object) -> tuple[str, ...]:
        items = tuple(_items(raw))
        for item in items:
            model, _, word = item.rpartition("=")
            if not model or word not in words:
                raise ValueError("not MODEL=WORD")
        return items

    return parse


def _aliases(raw: object) -> tuple[str, ...]:
    items = tuple(_items(raw))
    for item in items:
        alias, _, model = item.partition("=")
        if not (alias.strip() and model.strip()):
            raise ValueError("not ALIAS=MODEL")
    return items


def _target(item: str, default_port: int) -> Address:
    # A default port of 0 means that an entry must name its own.
    return parse_target(item, default_port=default_port or None)


def parse_path(raw: object) -> Path:
    """Return a path, `~` taken for a home.

    Raises:
        ValueError: no file can have it, or the home is nobody's.
    """
    text = _text(raw)
    if "\0" in text:
        raise ValueError("not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError("nobody's home") from error


def _optional(kind: Any, converter: Converter) -> Callable[[object, Any], Any]:
    inner = _not_none(kind)

    def structure(raw: object, _: Any) -> Any:
        if isinstance(raw, str) and raw.strip().lower() in _NONE:
            return None
        return converter.structure(raw, inner)

    return structure


def _ignoring_type(parser: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda raw, _: parser(raw)


def _is_literal(kind: Any) -> bool:
    return bool(get_origin(kind) == Literal)


def _literal(raw: object, kind: Any) -> str:
    text = _text(raw)
    if text not in get_args(kind):
        raise ValueError("none of the choices")
    return text


_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    bool: "1 or 0",
    Seconds: "seconds (or 500ms, 30s, 5m, 1h)",
    ByteCount: "bytes (or 64KiB, 4MiB, 1GiB)",
    Path: "a path",
    Bind: "host:port, [IPv6]:port or unix:/path",
    Address: "host:port or [IPv6]:port",
    tuple[Address, ...]: "host:port,…",
    tuple[str, ...]: "name,…",
    ModelAliases: "ALIAS=MODEL,…",
    ReasoningMarks: f"MODEL=WORD,…; the word one of {', '.join(_MARKS)}; the model * is any other",
    ToolSyntaxes: f"MODEL=WORD,…; the word one of {', '.join(_SYNTAXES)}; the model * is any other",
}

_PARSERS: dict[Any, Callable[[object], Any]] = {
    str: _text,
    int: _whole,
    bool: _truth,
    Seconds: _seconds,
    ByteCount: _byte_count,
    Path: parse_path,
    Bind: lambda raw: parse_bind(_text(raw)),
    Address: lambda raw: parse_address(_text(raw), min_port=0),
    tuple[str, ...]: lambda raw: tuple(_items(raw)),
    ModelAliases: _aliases,
    ReasoningMarks: _per_model(_MARKS),
    ToolSyntaxes: _per_model(_SYNTAXES),
}


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    for kind, parser in _PARSERS.items():
        hook = _ignoring_type(parser)
        if isinstance(
            kind, type
        ):  # cattrs has hooks of its own for these, which only this overrides
            converter.register_structure_hook(kind, hook)
        else:
            converter.register_structure_hook_func(partial(operator.eq, kind), hook)
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_factory(
        lambda kind: NoneType in get_args(kind), lambda kind: _optional(kind, converter)
    )
    return converter


_converter = _make_converter()
