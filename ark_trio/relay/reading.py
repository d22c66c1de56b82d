"""Every metric's value in this process at this moment."""

import platform

import trio

import ark_trio
from ark_trio.metrics import catalogue as metrics
from ark_trio.metrics.process import read_process
from ark_trio.metrics.tally import Reading
from ark_trio.relay.gateway import Gateway


def take_reading(gateway: Gateway) -> Reading:
    """Return every metric's value."""
    gateway.book.count_so_far()
    decoders = gateway.fleet.decoders
    limits = gateway.settings.limits
    flags = {
        metrics.RUNNING: gateway.admission.running,
        metrics.WAITING: gateway.admission.waiting,
        metrics.MAX_RUNNING: limits.max_requests,
        metrics.MAX_WAITING: limits.max_waiting,
        metrics.READY: gateway.fleet.ready and not gateway.leaving,
        metrics.DRAINING: gateway.leaving,
        metrics.TASKS: trio.lowlevel.current_statistics().tasks_living,
        metrics.START_TIME: gateway.started_at,
    }
    return {
        **gateway.book.tally.read(),
        **{metric.name: [((), float(value))] for metric, value in flags.items()},
        metrics.DECODER_READY.name: [((str(d.address),), float(d.ready)) for d in decoders],
        metrics.DECODER_RUNNING.name: [((str(d.address),), float(d.in_flight)) for d in decoders],
        metrics.BUILD.name: [((ark_trio.__version__, platform.python_version()), 1.0)],
        **read_process(),
    }
