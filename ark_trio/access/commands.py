"""`ark-trio keys add|list|revoke`: the file of keys, from the command line.

A key is shown once, when it is made; what is kept is its digest.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from ark_trio.access.key import Key, digest_of, new_secret
from ark_trio.access.key_change import add_key, revoke_key
from ark_trio.access.key_file import parse_field, read_keys, shown
from ark_trio.errors import ConfigError

_LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
_AGE: Final = re.compile(r"(\d{1,6})([hdw])")
_AGE_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
_COLUMNS: Final = ("name", "state", "may")


def add_flags(
    add: argparse.ArgumentParser, show: argparse.ArgumentParser, revoke: argparse.ArgumentParser
) -> None:
    """Give the three commands their flags."""
    for parser in (add, show, revoke):
        parser.add_argument("--json", action="store_true", help="tell it as JSON")
    for parser in (add, revoke):
        parser.add_argument("name", help="whom the key stands for")
    add.add_argument("--models", metavar="NAME,…", help="models that it may use [all]")
    for name in _LIMITS:
        text = f"{name.replace('_', ' ')} [without limit]"
        add.add_argument(f"--{name.replace('_', '-')}", metavar="N", type=int, help=text)
    add.add_argument("--priority", help="interactive or batch [interactive]")
    add.add_argument("--expires", metavar="WHEN", help="12h, 30d, 8w or 2027-01-31 [never]")
    add.add_argument("--admin", action="store_true", help="may see the state of the gateway")


def run_keys(path: Path | None, options: Mapping[str, Any]) -> int:
    """Do what the command line says with the file at `path`.

    Raises:
        ConfigError: it can't be done; the text is one line.
    """
    if path is None:
        raise ConfigError("keys_file: name the file by --keys-file or ARK_KEYS_FILE")
    commands: dict[str, Callable[[Path, Mapping[str, Any]], None]] = {
        "add": _add,
        "list": _list,
        "revoke": _revoke,
    }
    commands[str(options["action"])](path, options)
    return 0


def _add(path: Path, options: Mapping[str, Any]) -> None:
    secret = new_secret()
    key = Key(sha256=digest_of(secret), **_wanted(options))
    add_key(path, key)
    if options["json"]:
        _print_json({"name": key.name, "key": secret, **shown(key)})
        return
    print(secret)
    _hint("This is the only time that the key is shown. The gateway knows it once reloaded")


def _wanted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the flags ask for, checked as the file's are."""
    given: dict[str, Any] = {
        "name": options["name"],
        "models": options["models"] and _names(options["models"]),
        **{name: options[name] for name in _LIMITS},
        "priority": options["priority"],
        "expires": options["expires"] and _moment(options["expires"]),
        "admin": options["admin"],
    }
    try:
        return {n: parse_field(n, value) for n, value in given.items() if value is not None}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _moment(text: str) -> str:
    if not (age := _AGE.fullmatch(text)):
        return text
    try:
        moment = datetime.now(UTC) + timedelta(**{_AGE_UNITS[age[2]]: int(age[1])})
    except OverflowError as error:
        raise ConfigError("expires: expected an earlier moment") from error
    return moment.replace(microsecond=0).isoformat()


def _list(path: Path, options: Mapping[str, Any]) -> None:
    keys = read_keys(path)
    if options["json"]:
        _print_json([{"name": key.name, "expired": key.expired(), **shown(key)} for key in keys])
        return
    table = [_COLUMNS, *(_cells(key) for key in keys)]
    widths = [max(len(row[column]) for row in table) for column in (0, 1)]
    for name, state, may in table:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {may}")


def _cells(key: Key) -> tuple[str, str, str]:
    values = shown(key) | ({"models": ",".join(key.models)} if key.models is not None else {})
    may = ", ".join(f"{name} {value}" for name, value in values.items() if name != "admin")
    state = "expired" if key.expired() else "admin" if key.admin else "good"
    return key.name, state, may or "everything"


def _revoke(path: Path, options: Mapping[str, Any]) -> None:
    revoke_key(path, options["name"])
    if options["json"]:
        _print_json({"name": options["name"], "revoked": True})
        return
    print(f"{options['name']} revoked")
    _hint("The gateway refuses it once reloaded")


def _hint(text: str) -> None:
    print(f"{text}: systemctl reload ark-proxy, or SIGHUP.", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(orjson.dumps(value).decode())
