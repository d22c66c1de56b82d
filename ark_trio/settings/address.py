"""Where to listen and whom to call: host and port, or a Unix socket."""

import re
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_MAX_PORT = 65535
_MAX_UNIX_PATH_BYTES = 107  # sun_path of Linux, less its NUL

_THIS_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (a target is named, nothing is bound)


@frozen(kw_only=True)
class Address:
    """A TCP endpoint."""

    host: str
    """Name, IPv4, or IPv6 without brackets."""
    port: int

    def __str__(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it. A name other than localhost counts as not."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@frozen(kw_only=True)
class Bind:
    """Where the gateway listens: either host and port, or a Unix socket's path."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        """The form that `parse_bind` and hypercorn read."""
        return f"unix:{self.path}" if self.path else str(Address(host=self.host, port=self.port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it; a Unix socket always counts."""
        return self.path is not None or Address(host=self.host, port=self.port).is_loopback


def parse_address(text: str, *, default_port: int | None = None, min_port: int = 1) -> Address:
    """Read `host:port`, `[v6]:port`, or a lone host when there is a default port.

    Raises:
        ValueError: it is neither; a scheme or a path (`host:port/x`) is refused too.
    """
    host, port = _split(text.strip())
    if port is None:
        if default_port is None:
            raise ValueError("the port is missing")
        return Address(host=host, port=default_port)
    if not (port.isascii() and port.isdecimal() and min_port <= int(port) <= _MAX_PORT):
        raise ValueError("the port is not a number in range")
    return Address(host=host, port=int(port))


def parse_target(text: str, *, default_port: int | None = None) -> Address:
    """Read whom to call. The any-address means this host, as deployments have always written it."""
    address = parse_address(text, default_port=default_port)
    return Address(host=_THIS_HOST.get(address.host, address.host), port=address.port)


def parse_bind(text: str) -> Bind:
    """Read `host:port`, `[v6]:port` or `unix:/path`. Port 0 asks the kernel for one.

    Raises:
        ValueError: it is none of them.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > _MAX_UNIX_PATH_BYTES:
            raise ValueError("the socket's path is relative or too long")
        return Bind(path=Path(path))
    address = parse_address(text, min_port=0)
    return Bind(host=address.host, port=address.port)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("the brackets are not closed")
        return _checked_v6(host), rest[1:] if rest else None
    if text.count(":") > 1:
        raise ValueError("an IPv6 address needs brackets")
    host, colon, port = text.partition(":")
    if not _HOST.fullmatch(host):
        raise ValueError("the host is missing or malformed")
    return host, port if colon else None


def _checked_v6(host: str) -> str:
    if ip_address(host.partition("%")[0]).version != 6:  # noqa: PLR2004
        raise ValueError("brackets are for IPv6")
    return host
