"""Starts the planned services, says when they serve, and ends all of them when one ends or somebody asks."""

import json
import shlex
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import trio
from attrs import field, frozen

from ark_trio import __version__
from ark_trio.up.children import (
    Child,
    children_ended,
    describe_exit,
    end_sessions,
    start_child,
    stop_in_order,
)
from ark_trio.up.plan import DOCUMENTED_MODEL, Plan, Service, require_free_ports
from ark_trio.up.ready import Probe, answers_ready, reachable, wait_ready
from ark_trio.up.screen import Screen, ServiceLog

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_EACH_S = 0.5
"""Three services within two seconds, with some time left to kill."""
_READ_OUT_S = 0.2
_SHOWN_LINES = 12


@frozen(kw_only=True)
class Supervisor:
    """What a run of `up` needs."""

    plan: Plan
    screen: Screen
    log: ServiceLog
    ready_limit_s: float = 300.0
    """A model of many gigabytes takes its time; a service that hangs must still be told of."""
    probes: Mapping[str, Probe] = field(factory=lambda: {"gateway": answers_ready})
    """How to see that a service is ready, where accepting connections doesn't say so."""


@frozen(kw_only=True)
class Ending:
    """Why the run is over."""

    failed: bool
    text: str = ""
    died: Child | None = None


def run_supervisor(supervisor: Supervisor) -> int:
    """Run until a signal (0), or until a service ends or doesn't get ready (1). Nothing is left behind.

    Raises:
        ConfigError: an address is taken; nothing was started.
    """
    require_free_ports(supervisor.plan.services)
    try:
        return trio.run(_run, supervisor)
    finally:
        supervisor.log.close()


async def _run(supervisor: Supervisor) -> int:
    """Own the children: they are started, pumped and ended in this task's nursery, the only one but `_until_end`'s."""
    children: list[Child] = []
    # Signals stay ours until the last child is reaped, so that a second Ctrl-C can't cut the stopping short.
    with trio.open_signal_receiver(*_SIGNALS) as signals, children_ended(children):
        async with trio.open_nursery() as nursery:
            for service in supervisor.plan.services:
                child = start_child(service.name, service.command)
                children.append(child)
                nursery.start_soon(child.pump, partial(supervisor.log.write, service.name))
            ending = await _until_end(supervisor, children, signals)
            _tell(supervisor.screen, ending)
            nursery.start_soon(_ignore, signals)
            # The gateway first: it tells its clients; decoder and prefiller are still there while it does.
            everyone = children[::-1]
            await stop_in_order(everyone, _STOP_EACH_S)
            end_sessions(children)
            await _read_out(everyone)
            nursery.cancel_scope.cancel()
    if not ending.failed:
        supervisor.screen.say("All services stopped.")
    return 1 if ending.failed else 0


async def _ignore(signals: AsyncIterator[int]) -> None:
    """Take further signals: what nobody takes is delivered again when the receiver closes, and would end us by it."""
    async for _ in signals:
        pass


async def _read_out(children: Sequence[Child]) -> None:
    """Let the log have what was written last. All writers are gone, so this takes a moment only."""
    with trio.move_on_after(_READ_OUT_S):
        for child in children:
            await child.silent.wait()


async def _until_end(
    supervisor: Supervisor, children: Sequence[Child], signals: AsyncIterator[int]
) -> Ending:
    """Whatever comes first; the nursery is for waiting on several things at once, and ends with this call."""
    send, receive = trio.open_memory_channel[Ending](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_on_signal, signals, send)
        for child in children:
            nursery.start_soon(_on_death, child, send)
        nursery.start_soon(_on_ready, supervisor, send)
        ending = await receive.receive()
        nursery.cancel_scope.cancel()
    return ending


async def _on_signal(signals: AsyncIterator[int], send: trio.MemorySendChannel[Ending]) -> None:
    async for number in signals:
        name = signal.Signals(number).name
        await send.send(Ending(failed=False, text=f"{name}: stopping"))


async def _on_death(child: Child, send: trio.MemorySendChannel[Ending]) -> None:
    await child.ended()
    await child.last_words()
    await send.send(Ending(failed=True, died=child))


async def _on_ready(supervisor: Supervisor, send: trio.MemorySendChannel[Ending]) -> None:
    """Show the way to readiness; send an ending only if it isn't reached."""
    services, started, ready = supervisor.plan.services, time.monotonic(), set[str]()

    def show(names: set[str]) -> None:
        ready.update(names)
        supervisor.screen.progress(_progress(supervisor.screen, services, ready, started))

    with trio.move_on_after(supervisor.ready_limit_s):
        await wait_ready(services, supervisor.probes, show)
        supervisor.screen.say(_welcome(supervisor, time.monotonic() - started))
        return
    missing = " and ".join(service.name for service in services if service.name not in ready)
    await send.send(
        Ending(failed=True, text=f"not ready after {supervisor.ready_limit_s:g} s: {missing}")
    )


def _tell(screen: Screen, ending: Ending) -> None:
    child = ending.died
    if child is None:
        screen.say(f"ark-trio: {ending.text}")
        return
    status = child.exit_status()
    screen.say(f"ark-trio: the {child.name} ended ({describe_exit(status)}); stopping the others")
    lines = list(child.tail)[-_SHOWN_LINES:]
    if lines:
        screen.say(f"The last lines of the {child.name}:")
    for line in lines:
        screen.say(f"  {line}")


def _progress(screen: Screen, services: Sequence[Service], ready: set[str], started: float) -> str:
    states = [f"{each.name} {'ready' if each.name in ready else '…'}" for each in services]
    # Elsewhere than on a terminal each change is a line; a running clock would change it all the time.
    clock = f"  {time.monotonic() - started:.1f} s" if screen.is_terminal else ""
    return f"Starting: {', '.join(states)}{clock}"


def _welcome(supervisor: Supervisor, took_s: float) -> str:
    plan = supervisor.plan
    where = reachable(plan.gateway.bind)
    url = "http://localhost" if where.path else f"http://{where}"
    through = f"--unix-socket {shlex.quote(str(where.path))} " if where.path else ""
    body = {
        "model": DOCUMENTED_MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    }
    return (
        f"\nark-trio {__version__} serves {plan.model} at {url}/v1 (ready after {took_s:.1f} s)."
        f" Ctrl-C stops it.\nThe services' log: {supervisor.log.path}\n\n"
        f"curl -N {through}{url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'\n"
    )
