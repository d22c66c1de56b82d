"""The little language in which a request tells the echo engine what to do (docs/echo-engine.md)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
import orjson
from attrs import frozen

from ark_trio.errors import (
    ArkError,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    Overloaded,
    Unavailable,
)

FAILURES: Mapping[str, type[ArkError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotFound,
    "ABORTED": Conflict,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNIMPLEMENTED": NotImplementedByEngine,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INTERNAL": InternalError,
}
"""gRPC status -> the error that becomes it."""

MAX_COUNT = 10_000_000
MAX_SECONDS = 86_400.0
MAX_BYTES = 16 << 20
MAX_CHOICES = 128


@frozen(kw_only=True)
class ScriptedTool:
    """A tool call to make."""

    name: str
    arguments: str


@frozen(kw_only=True)
class Script:
    """What to say to one request, and how."""

    count: int | None = None
    """Messages of text a choice; None: as many as `text` has words."""
    text: str | None = None
    """What to say, word by word, over and over until `count`; None: 0, 1, 2, …"""
    size: int = 0
    """Bytes that each message's text is padded to."""
    reasoning: str = ""
    tools: tuple[ScriptedTool, ...] = ()
    pieces: int = 3
    """Messages over which the arguments of a tool call are cut."""
    n: int | None = None
    """Choices; None: as many as the request asks for."""
    gap_s: float = 0.0
    first_delay_s: float = 0.0
    burst: int = 1
    """Messages a step."""
    fail_at: int | None = None
    """Fail once so many messages are out."""
    status: str = "UNAVAILABLE"
    message: str = "scripted failure"
    code: str | None = None
    param: str | None = None
    hang_at: int | None = None
    """Say nothing more once so many messages are out."""
    garbage_at: int | None = None
    """Send an ill-typed message once so many are out."""
    stray_choice: int | None = None
    """Begin with a message for this choice, which nobody asked for."""
    finish: str | None = None
    """finish_reason; None: the truthful one; `none`: no finish_reason at all."""
    merge_finish: bool = False
    """finish_reason comes with the last text instead of by itself."""
    usage: Literal["each", "last", "alone", "never"] = "last"
    cached: int | None = None
    """Prompt tokens to claim as found in the prefix cache."""
    shape: Literal["both", "nested", "flat"] = "both"
    cut_bytes: int = 0
    """Cut the text every so many bytes, through characters if need be; then the shape is flat."""
    req_id: str | None = None
    """Answer under this req_id instead of the request's."""


def parse_script(text: str) -> Script:
    """Read a script: a JSON object, or `key=value` words. Text that begins with no known key is to be echoed.

    Raises:
        InvalidRequest: it begins as a script, and then a key is unknown or a value out of its range.
    """
    given = _given(text.strip())
    if not given or next(iter(given)) not in _READERS:
        return Script(text=text)
    return Script(**{_FIELD.get(key, key): _read(key, value) for key, value in given.items()})


def _given(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            loaded = orjson.loads(text)
        except orjson.JSONDecodeError:
            return {}
        return loaded if isinstance(loaded, dict) else {}
    pairs = [word.partition("=") for word in text.split()]
    if not all(equals for _, equals, _ in pairs):
        return {}
    return {key: _literal(value) for key, _, value in pairs}


def _literal(word: str) -> Any:
    try:
        return orjson.loads(word)
    except orjson.JSONDecodeError:
        return word


def _read(key: str, value: Any) -> Any:
    reader = _READERS.get(key)
    if reader is None:
        raise InvalidRequest(f"The script's key `{key}` is unknown. Known: {', '.join(_READERS)}.")
    try:
        return reader(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"The script's `{key}` {error}.") from error


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"must be seconds from 0 to {MAX_SECONDS:.0f}")
    return float(value)


def _text(value: Any) -> str:
    if isinstance(value, dict | list | bool) or value is None:
        raise ValueError("must be text")
    return str(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return read


def _reasoning(value: Any) -> str:
    """A text, or a number of words."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return " ".join(f"r{number}" for number in range(value))
    return _text(value)


def _tools(value: Any) -> tuple[ScriptedTool, ...]:
    """A name, or a list of {name, arguments}; arguments as JSON or as text."""
    if isinstance(value, str):
        return (ScriptedTool(name=value, arguments="{}"),)
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise ValueError("must be a name, or objects with name and arguments")
    return tuple(
        ScriptedTool(name=_text(call["name"]), arguments=_as_json(call.get("arguments", {})))
        for call in calls
    )


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


_FIELD = {"tool": "tools"}

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "count": _whole(0, MAX_COUNT),
    "text": _text,
    "size": _whole(0, MAX_BYTES),
    "reasoning": _reasoning,
    "tool": _tools,
    "pieces": _whole(1, 1000),
    "n": _whole(1, MAX_CHOICES),
    "gap_s": _seconds,
    "first_delay_s": _seconds,
    "burst": _whole(1, 10_000),
    "fail_at": _whole(0, MAX_COUNT),
    "status": _one_of(*FAILURES),
    "message": _text,
    "code": _text,
    "param": _text,
    "hang_at": _whole(0, MAX_COUNT),
    "garbage_at": _whole(0, MAX_COUNT),
    "stray_choice": _whole(0, 2**31),
    "finish": _text,
    "merge_finish": _flag,
    "usage": _one_of("each", "last", "alone", "never"),
    "cached": _whole(0, MAX_COUNT),
    "shape": _one_of("both", "nested", "flat"),
    "cut_bytes": _whole(0, MAX_BYTES),
    "req_id": _text,
}

assert {_FIELD.get(key, key) for key in _READERS} == set(attrs.fields_dict(Script))  # noqa: S101
