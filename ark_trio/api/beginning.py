"""What is known of a request before anything of it is looked at: its id, and who sends it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ark_trio.ids import new_id
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.record import Record

_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def open_record(scope: Mapping[str, Any], gateway: Gateway) -> Record:
    """Return a record of the request, for its connection to end."""
    return Record(
        request_id=request_id(scope["headers"]),
        method=scope["method"],
        path=scope["path"],
        client=client_address(scope) if gateway.settings.log.addresses else None,
        tally=gateway.book.tally,
        models=gateway.book.models,
    )


def client_address(scope: Mapping[str, Any]) -> str:
    """Return where the connection comes from; a unix socket's other end has no address."""
    client = scope.get("client")
    return str(client[0]) if client else "unix"


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's own x-request-id if it is sane, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return value.decode("ascii")
    return new_id()
