"""What of an engine's own words a client may hear: all but what tells of the inside.

Statuses that blame the request carry the answer in words ("the context is 8192 tokens, the prompt has 9000"), so these pass; but
engines are other people's programs. Addresses, URLs, paths and the names of exceptions are taken out where they stand, and a
message with a traceback in it says nothing else. Too much may be taken out, too little not: the log has the words as they came.
"""

import re
from ipaddress import ip_address
from typing import Final

HIDDEN: Final = "…"
_MAX_READ: Final = 1000
"""Characters of a message."""
_TRACEBACK: Final = re.compile(
    r"""Traceback \(most|\bFile ".*", line \d|\bat 0x[0-9a-f]|\.(?:py|cc|cpp|cu|cuh|hpp|rs|go):\d""",
    re.I,
)
_DOMAINS: Final = (
    "local|localhost|localdomain|internal|intranet|lan|corp|svc|cluster|com|net|org|io|cn|dev|cloud"
)
_INSIDE: Final = re.compile(
    rf"""
    [a-z][a-z0-9+.-]*://[^\s"'<>]*                                # a URL
    | (?<![\w/\#.])~?/[a-z_.][^\s"'<>,;:()]*                      # a path; "#/…" is a place in the caller's schema
    | \b[a-z]:\\[^\s"'<>]*                                        # a path of Windows
    | (?<![\w.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?(?![\w.]\w) # IPv4
    | \[[0-9a-f:.]*:[0-9a-f:.]*(?:%\w+)?\](?::\d+)?               # IPv6
    | \b[a-z][\w.-]*:\d{{4,5}}\b                                  # a host and its port
    | \b(?:localhost|[\w-]+(?:\.[\w-]+)*\.(?:{_DOMAINS}))\b(?::\d+)?
    | \b(?:\w+\.)*\w*(?:Error|Exception)\b(?:\(|:\s*)?            # an exception
    | <(?:class|object|function|module|bound)\s[^>]*>
    """,
    re.I | re.X,
)
_MAYBE_IPV6: Final = re.compile(r"(?<![\w:.])[0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*(?![\w:])", re.I)


def told(message: str) -> str | None:
    """Return what may be told of an engine's message, on one line; None: nothing."""
    message = message[:_MAX_READ]  # the patterns take quadratic time
    if _TRACEBACK.search(message):
        return None
    text = " ".join(_outside(message).split())
    return text if re.search(r"\w", text) else None


def is_harmless(name: str) -> bool:
    """Whether a name that an engine gives tells nothing of the inside."""
    return len(name) <= _MAX_READ and _outside(name) == name


def _outside(text: str) -> str:
    return _MAYBE_IPV6.sub(_without_address, _INSIDE.sub(HIDDEN, text))


def _without_address(found: re.Match[str]) -> str:
    try:
        address = ip_address(found[0].rstrip("."))
    except ValueError:
        return found[0]
    return found[0] if address.is_unspecified else HIDDEN  # "::=" is grammar
