"""What goes on, for people and scripts: of one process, and of all workers together."""

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import trio

import ark_trio
from ark_trio.fleet.fleet import Fleet
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.record import Record

MAX_STREAMS = 1000
"""Requests that one worker lists; the oldest, which are the ones to wonder about."""


def take_status(gateway: Gateway) -> dict[str, Any]:
    """Return what goes on."""
    fleet = gateway.fleet
    live = [record for record in gateway.book.live if record.queued is not None]
    return {
        "pid": os.getpid(),
        "state": _state(gateway),
        "started_at": gateway.started_at,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "queue": {
            "running": gateway.admission.running,
            "waiting": gateway.admission.waiting,
            "max_running": gateway.settings.limits.max_requests,
            "max_waiting": gateway.settings.limits.max_waiting,
        },
        "decoders": _seen(fleet),
        "keys": gateway.admission.by_key(),
        "rates": gateway.book.rates(),
        "streams": [_stream(record) for record in live[:MAX_STREAMS]],
        "streams_not_listed": max(0, len(live) - MAX_STREAMS),
    }


def all_status(said: Mapping[int, Any]) -> dict[str, Any]:
    """Return the whole gateway's status from what each worker says; None is one that did not answer."""
    heard = {number: status for number, status in said.items() if status is not None}
    workers = [
        {"worker": number, "state": "silent"}
        if status is None
        else {"worker": number, **{name: status[name] for name in _OF_A_WORKER}}
        for number, status in said.items()
    ]
    streams = [
        {"worker": number, **stream} for number, each in heard.items() for stream in each["streams"]
    ]
    return {
        "version": ark_trio.__version__,
        "now": int(time.time()),
        "workers": workers,
        "queue": _sum(status["queue"] for status in heard.values()),
        "keys": _keys(heard.values()),
        "rates": _sum(status["rates"] for status in heard.values()),
        "decoders": _decoders(heard),
        "streams": sorted(streams, key=lambda stream: -stream["age_s"])[:MAX_STREAMS],
        "streams_not_listed": sum(status["streams_not_listed"] for status in heard.values())
        + max(0, len(streams) - MAX_STREAMS),
    }


_OF_A_WORKER = ("pid", "state", "started_at", "tasks")


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = round(total.get(name, 0) + value, 3)
    return total


def _keys(heard: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each key has running and waiting; None is those without one."""
    total: dict[str, tuple[int, int]] = {}
    for status in heard:
        for key, (running, waiting) in status["keys"].items():
            before = total.get(key, (0, 0))
            total[key] = (before[0] + running, before[1] + waiting)
    return [
        {"key": key or None, "running": running, "waiting": waiting}
        for key, (running, waiting) in total.items()
    ]


def _decoders(heard: Mapping[int, Any]) -> list[dict[str, Any]]:
    """Each decoder once; its state is what every worker sees, or `mixed`, and then which sees what."""
    seen: dict[str, dict[int, Any]] = {}
    for number, status in heard.items():
        for decoder in status["decoders"]:
            seen.setdefault(decoder["decoder"], {})[number] = decoder
    return [_decoder(name, views) for name, views in seen.items()]


def _decoder(name: str, views: Mapping[int, Any]) -> dict[str, Any]:
    states = {view["state"] for view in views.values()}
    return {
        "decoder": name,
        "state": states.pop() if len(states) == 1 else "mixed",
        "models": sorted({model for view in views.values() for model in view["models"]}),
        "running": sum(view["running"] for view in views.values()),
        "ejections": sum(view["ejections"] for view in views.values()),
        "ejected_for_s": max(view["ejected_for_s"] for view in views.values()),
        "seen_by": {str(number): view["state"] for number, view in views.items()},
    }


def _state(gateway: Gateway) -> str:
    if gateway.draining:
        return "draining"
    return "leaving" if gateway.leaving else "serving"


def _seen(fleet: Fleet) -> list[dict[str, Any]]:
    """Each address once: one that was struck off and is back still finishes what it had."""
    now = trio.current_time()
    seen: dict[str, dict[str, Any]] = {}
    for decoder in (*fleet.decoders, *fleet.leaving):
        name, served = str(decoder.address), decoder.served or decoder.last_served
        if name in seen:
            seen[name]["running"] += decoder.in_flight
            continue
        seen[name] = {
            "decoder": name,
            "state": decoder.state(now),
            "models": list(served.models) if served else [],
            "running": decoder.in_flight,
            "ejections": decoder.ejection.count,
            "ejected_for_s": round(max(0.0, decoder.ejection.until - now), 1),
        }
    return [*seen.values()]


def _stream(record: Record) -> dict[str, Any]:
    client = {} if record.client is None else {"client": record.client}
    return {
        "request_id": record.request_id,
        **client,
        "key": record.key,
        "model": record.model,
        "decoder": record.decoder,
        "phase": record.phase,
        "stream": record.stream,
        "age_s": round(record.age_s, 3),
        "tokens": record.generated_tokens,
        "retries": record.retries,
    }
