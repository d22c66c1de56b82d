"""Every metric's value in this process at this moment."""

import platform
from collections import Counter

import trio

import ark_trio
from ark_trio.fleet.fleet import Fleet
from ark_trio.metrics import catalogue as metrics
from ark_trio.metrics.process import read_process
from ark_trio.metrics.tally import Reading
from ark_trio.relay.gateway import DoorCounts, Gateway


def take_reading(gateway: Gateway) -> Reading:
    """Return every metric's value."""
    gateway.book.count_so_far()
    limits = gateway.settings.limits
    flags = {
        metrics.RUNNING: gateway.admission.running,
        metrics.WAITING: gateway.admission.waiting,
        metrics.MAX_RUNNING: limits.max_requests,
        metrics.MAX_WAITING: limits.max_waiting,
        metrics.READY: gateway.fleet.ready and not gateway.leaving,
        metrics.DRAINING: gateway.leaving,
        metrics.GATHERING: gateway.pressure.window_s(),
        metrics.TASKS: trio.lowlevel.current_statistics().tasks_living,
        metrics.START_TIME: gateway.started_at,
    }
    return {
        **gateway.book.tally.read(),
        **{metric.name: [((), float(value))] for metric, value in flags.items()},
        **_read_decoders(gateway.fleet),
        **({} if gateway.door is None else _read_door(gateway.door)),
        metrics.BUILD.name: [((ark_trio.__version__, platform.python_version()), 1.0)],
        **read_process(),
    }


def _read_decoders(fleet: Fleet) -> Reading:
    now = trio.current_time()
    ours = [(str(each.address), each) for each in fleet.decoders]
    # One that was struck off only finishes what it has: it is not missed. It may be back under the same address meanwhile.
    running: Counter[str] = Counter()
    for each in (*fleet.decoders, *fleet.leaving):
        running[str(each.address)] += each.in_flight
    return {
        metrics.DECODER_READY.name: [
            ((name,), float(each.state(now) == "ready")) for name, each in ours
        ],
        metrics.DECODER_EJECTED.name: [
            ((name,), float(each.state(now) == "ejected")) for name, each in ours
        ],
        metrics.EJECTIONS.name: [((name,), each.ejection.count) for name, each in ours],
        metrics.DECODER_RUNNING.name: [((name,), count) for name, count in running.items()],
    }


def _read_door(door: DoorCounts) -> Reading:
    return {
        metrics.CONNECTIONS.name: [((), door.inside)],
        metrics.MAX_CONNECTIONS.name: [((), door.places)],
        metrics.CONNECTED.name: [
            (("accepted",), door.entered),
            (("shed",), door.shed),
            (("turned_away",), door.turned_away),
        ],
    }
