"""The file of keys: one JSON object a line, lines that begin with # for people.

Source of the format: docs/operations.md, "Keys and limits". A line that is not understood refuses the file: a limit that is
misspelt and ignored would be no limit.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import orjson

from ark_trio.access.key import Key, Priority
from ark_trio.access.keyring import KeyRing
from ark_trio.errors import ConfigError

MAX_FILE_BYTES: Final = 16 * 2**20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MOST: Final = 2**53
_ECHO_CHARS: Final = 40


def read_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file.

    Raises:
        ConfigError: one line that names the line and the field at fault, and never shows a digest.
    """
    return parse_keys(read_text(path), path)


def open_keyring(path: Path | None) -> KeyRing | None:
    """Return the keys of the settings' file; None: there is no such file, and nobody needs a key.

    Raises:
        ConfigError: see `read_keys`.
    """
    return None if path is None else KeyRing(read_keys(path))


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        # A pipe would keep whoever opens it waiting, and with them every stream.
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"keys_file: {path}: can't be read: not a file")
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"keys_file: {path}: larger than {MAX_FILE_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"keys_file: {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"keys_file: {path}: not UTF-8 text") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def parse_keys(text: str, path: Path) -> tuple[Key, ...]:
    """Return the keys of a file's text; see `read_keys`."""
    keys: list[Key] = []
    names: set[str] = set()
    digests: set[bytes] = set()
    for number, key in _lines(text, path):
        if key.name in names or key.sha256 in digests:
            what = "name" if key.name in names else "sha256"
            raise ConfigError(f"keys_file: {path}: line {number}: {what}: on another line too")
        names.add(key.name)
        digests.add(key.sha256)
        keys.append(key)
    return tuple(keys)


def parse_key(line: str) -> Key:
    """Return the key of one line.

    Raises:
        ValueError: its text names the field and what is expected there.
    """
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError("not a JSON object") from error
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 (as every other mistake in a line)
    for required in ("name", "sha256"):
        if values.get(required) is None:
            raise ValueError(f"{required}: is missing")
    given = {name: value for name, value in values.items() if value is not None}
    return Key(**{name: parse_field(name, value) for name, value in given.items()})


def parse_field(name: str, value: Any) -> Any:
    """Return a field's value, checked.

    Raises:
        ValueError: its text names the field and what is expected.
    """
    if name not in _FIELDS:
        raise ValueError(f"{name[:_ECHO_CHARS]!r} is no field; there are {', '.join(_FIELDS)}")
    parse, expected = _FIELDS[name]
    try:
        return parse(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: expected {expected}") from error


def key_line(key: Key) -> str:
    """Return a key as its line, without what is not limited."""
    return orjson.dumps({"name": key.name, "sha256": key.sha256.hex(), **shown(key)}).decode()


def shown(key: Key) -> dict[str, Any]:
    """Return what is to be said of a key beside its name and digest."""
    values = {
        "models": key.models,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "concurrent_requests": key.concurrent_requests,
        "priority": key.priority if key.priority != "interactive" else None,
        "expires": key.expires and key.expires.isoformat().replace("+00:00", "Z"),
        "admin": key.admin or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def is_key_line(line: str) -> bool:
    """Whether a line holds a key, and not an empty one or a remark."""
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _lines(text: str, path: Path) -> Iterator[tuple[int, Key]]:
    # Not splitlines: it would cut at characters that JSON allows within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if is_key_line(line):
            try:
                yield number, parse_key(line)
            except ValueError as error:
                raise ConfigError(f"keys_file: {path}: line {number}: {error}") from error


def _name(value: Any) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("not a name")
    return str(value)


def _digest(value: Any) -> bytes:
    if not _DIGEST.fullmatch(value):
        raise ValueError("not a digest")
    return bytes.fromhex(value)


def _models(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError("not a list of names")
    return tuple(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ValueError("not a count")
    return value


def _priority(value: Any) -> str:
    if value not in get_args(Priority):
        raise ValueError("not a priority")
    return str(value)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    # A date alone, or a time without a zone, is in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a truth")
    return value


_AT_LEAST_ONE: Final = "a whole number, at least 1"
_FIELDS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "name": (_name, "1 to 64 of A-Z a-z 0-9 . _ @ -"),
    "sha256": (_digest, "64 hexadecimal digits in lower case"),
    "models": (_models, "a list of models' names"),
    "requests_per_minute": (_count, _AT_LEAST_ONE),
    "tokens_per_minute": (_count, _AT_LEAST_ONE),
    "concurrent_requests": (_count, _AT_LEAST_ONE),
    "priority": (_priority, "interactive or batch"),
    "expires": (_moment, "a moment as 2027-01-31 or 2027-01-31T12:00:00Z"),
    "admin": (_truth, "true or false"),
}
