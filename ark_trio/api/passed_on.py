"""What of a request's headers has its effect beyond the gateway: its trace, and what binds it to a decoder."""

import re

from ark_trio.api.headers import RequestHeaders
from ark_trio.config import FleetSettings
from ark_trio.rpc.call import Metadata

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


def bond_of(
    headers: RequestHeaders, fleet: FleetSettings, key: bytes | None, caller: str | None
) -> bytes | None:
    """Return what binds a request to a decoder, by the policy that is set; `key` is of the conversation.

    Callers' bonds differ, whatever they send: nobody finds out where another's conversation is, nor crowds there.
    """
    bond = key
    if fleet.policy == "session":
        said = headers.get(fleet.session_header.lower().encode()) or ""
        bond = said.encode() or None
    return bond if bond is None or caller is None else b"%b\n%b" % (caller.encode(), bond)


def trace_of(headers: RequestHeaders) -> Metadata:
    """Return the W3C trace context of a request, if it has a sane one. Source: W3C Trace Context, level 1."""
    parent = headers.get(b"traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return ()
    state = headers.get(b"tracestate")
    if state is None or not _TRACESTATE.fullmatch(state):
        return (("traceparent", parent),)
    return (("traceparent", parent), ("tracestate", state))
