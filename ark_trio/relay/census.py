"""What there is now of everything that a request could leave behind, counted for operators and for tests of leaks.

On SIGUSR1 the gateway writes it into its log. At rest calls, places, leases and gRPC streams are 0, and tasks and descriptors
what they were after the start: connections of clients that stay open between requests come to that.
"""

import os

import trio

from ark_trio.relay.gateway import Gateway

_OWN_DESCRIPTOR = 1
"""The one that lists them."""


def take_census(gateway: Gateway) -> dict[str, int]:
    """Count. Cheap enough to ask any time."""
    decoders = gateway.fleet.decoders
    return {
        "calls": gateway.open_calls,
        "running": gateway.admission.running,
        "waiting": gateway.admission.waiting,
        "leases": sum(decoder.in_flight for decoder in decoders),
        "grpc_streams": sum(decoder.open_streams for decoder in decoders),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "descriptors": len(os.listdir("/proc/self/fd")) - _OWN_DESCRIPTOR,  # noqa: PTH208
        "resident_bytes": _resident_bytes(),
    }


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
