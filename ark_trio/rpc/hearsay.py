"""What of an engine's own words a client may hear: all but what tells of the inside.

Statuses that blame the request carry the answer in words ("the context is 8192 tokens, the prompt has 9000"), so these pass; but
engines are other people's programs. Addresses, URLs, paths and the names of exceptions are taken out where they stand, and a
message with a traceback in it says nothing else. Too much may be taken out, too little not: the log has the words as they came.
"""

import re
from ipaddress import ip_address
from typing import Final

HIDDEN: Final = "…"
_MAX_READ: Final = 500
"""Characters of a message."""
_TRACEBACK: Final = re.compile(
    r"""Traceback \(most|\bFile ".*", line \d|\bat 0x[0-9a-f]{6}|\bobject at 0x|\.(?:py|cc|cpp|cu|cuh|hpp|rs|go):\d""",
    re.I,
)
_DOMAINS: Final = "local|localhost|localdomain|internal|intranet|lan|corp|svc|cluster|com|net|org|io|ai|cn|de|eu|dev|cloud"
_INSIDE: Final = re.compile(
    rf"""
    [a-z][a-z0-9+.-]{{0,15}}://[^\s"'<>]*                                # a URL
    | (?<![\w/\#.])(?:~|\.{{1,2}})?/[\w.][^\s"'<>,;:()]*           # a path; "#/…" is a place in the caller's schema
    | [\w./-]{{1,100}}\.(?:gguf|safetensors|bin|so)\b              # a file's name
    | \\\\[\w.-]+\\[^\s"'<>]*                                     # a path of a Windows server
    | \b[a-z]:\\[^\s"'<>]*                                        # a path of Windows
    | (?<![\w.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?(?![\w.]\w) # IPv4
    | \[(?=[^\]]{{0,45}}:[^\]]{{0,45}}:)[0-9a-f:.]{{2,45}}(?:%\w+)?\](?::\d+)?  # IPv6
    | \b[a-z][\w.-]{{0,60}}:\d{{4,5}}\b                            # a host and its port
    | \b[a-z](?=[\w.-]{{0,60}}[\d-][\w.-]{{0,60}}:)[\w.-]{{0,60}}:\d{{2,5}}\b
    | \b(?:localhost|[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,6}}\.(?:{_DOMAINS}))\b(?::\d+)?
    | (?-i:\b(?:\w{{1,40}}\.){{0,6}}[A-Z]\w{{0,60}}(?:Error|Exception)\b(?:\(|:\s*)?)  # an exception
    | <(?:class|object|function|module|bound)\s[^>]*>
    """,
    re.I | re.X,
)
_MAX_NAME: Final = 500
_TELLING: Final = re.compile(
    r"^\s*[/~\\]|://|\d\.\d{1,3}\.\d{1,3}\.\d|:\s|\.(?:local|localdomain|internal|svc|cluster|lan|corp)\b"
)
_MAYBE_IPV6: Final = re.compile(r"(?<![\w:.])[0-9a-f:.]{2,45}(?![\w:])", re.I)


def told(message: str) -> str | None:
    """Return what may be told of an engine's message, on one line; None: nothing."""
    message = message[:_MAX_READ]  # the patterns take quadratic time
    if _TRACEBACK.search(message):
        return None
    text = " ".join(_outside(message).split())
    return text if re.search(r"\w", text) else None


def is_harmless(name: str) -> bool:
    """Whether what an engine gives for a parameter's name, which callers choose for their schemas, or a code is no more than that."""
    return len(name) <= _MAX_NAME and _TELLING.search(name) is None


def _outside(text: str) -> str:
    return _MAYBE_IPV6.sub(_without_address, _INSIDE.sub(HIDDEN, text))


def _without_address(found: re.Match[str]) -> str:
    if found[0].count(":") < 2:  # noqa: PLR2004 (an IPv6 address has that many)
        return found[0]
    try:
        address = ip_address(found[0].rstrip("."))
    except ValueError:
        return found[0]
    return found[0] if address.is_unspecified else HIDDEN  # "::=" is grammar
