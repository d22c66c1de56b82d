"""The decoder and the prefiller as processes: load, listen, say so, and stop as signals ask."""

import atexit
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Literal

import structlog
import trio
from attrs import define, frozen

from ark_trio.config import Settings
from ark_trio.engine.echo.engine import open_echo
from ark_trio.engine.exposition import exposition
from ark_trio.engine.health import wait_for_prefiller
from ark_trio.engine.llama.decoder import open_decoder
from ark_trio.engine.llama.prefiller import open_prefiller
from ark_trio.engine.scrape import serve_scrapes
from ark_trio.engine.xllm.run import run_xllm
from ark_trio.errors import ConfigError, Unavailable
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.rpc.server import ArkServer, Engine, bind_tcp, open_server_on
from ark_trio.rpc.server_connection import ServerOptions
from ark_trio.settings.address import Address
from ark_trio.systemd import Notifier, open_notifier
from ark_trio.tls import serve_context
from ark_wire.inference import ControlType

log = structlog.get_logger()

Role = Literal["decoder", "prefiller"]

ECHO_MODEL = "echo"
"""What the echo engine's model is called unless served names are configured."""
STOP_MARGIN_S = 10.0
"""What the service manager is asked to wait beyond the longest drain."""


def run_decoder(settings: Settings) -> int:
    """Serve a decoder until a signal ends it; return the exit status."""
    return _run(settings, "decoder")


def run_prefiller(settings: Settings) -> int:
    """Serve a prefiller until a signal ends it; return the exit status."""
    return _run(settings, "prefiller")


def _run(settings: Settings, role: Role) -> int:
    with open_notifier(os.environ) as notifier:
        if settings.engine.driver == "xllm":
            return run_xllm(settings, role, notifier)
        return _run_own(settings, role, notifier)


def _run_own(settings: Settings, role: Role, notifier: Notifier) -> int:
    # The ports come first: that one is taken should be known before a model is loaded.
    ending = _Ending()
    with ExitStack() as stack:
        try:
            doors = _Doors(
                grpc=_bound(stack, settings.grpc_bind, settings.grpc_also_bind),
                scrapes=_bound(stack, settings.engine.metrics_bind),
            )
        except Unavailable as error:
            log.error("engine_failed", role=role, reason=error.message)  # noqa: TRY400 (one line for the operator)
            return 1
        status = trio.run(_supervise, settings, role, doors, notifier, ending)
    if ending.at_once:
        # Nothing of ours is left, but llama.cpp may be computing or loading still, and waits for that before it unloads.
        atexit.register(_end_now)
    return status


def _bound(stack: ExitStack, *addresses: Address | None) -> list[socket.socket]:
    """Return a socket bound to each address that is set; `stack` closes them."""
    bound = []
    for address in filter(None, addresses):
        try:
            bound.append(stack.enter_context(bind_tcp(address.host, address.port)))
        except OSError as error:
            raise Unavailable(f"can't listen on {address}: {error.strerror or error}") from error
    return bound


def _end_now() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@frozen(kw_only=True)
class _Doors:
    """Bound sockets."""

    grpc: list[socket.socket]
    scrapes: list[socket.socket]
    """For monitoring: one, or none."""


@define
class _Ending:
    """How the process is to end."""

    at_once: bool = False


async def _supervise(
    settings: Settings,
    role: Role,
    doors: _Doors,
    notifier: Notifier,
    ending: _Ending,
) -> int:
    """Serve until told to stop. SIGTERM lets calls finish; a second one, or SIGINT, ends at once."""
    stop = trio.Event()
    # The process's nursery: the service beside the task that hears signals.
    async with trio.open_nursery() as nursery:
        await nursery.start(_obey_signals, stop, nursery.cancel_scope, ending)
        nursery.start_soon(notifier.feed_watchdog)
        status = 0
        async with open_bridge() as bridge:
            # Inside every nursery, so that it arrives as itself and not in a group.
            try:
                await wait_for_prefiller(bridge, settings, notifier)
                await _serve(settings, role, bridge, doors, stop, notifier)
            except (ConfigError, Unavailable) as error:
                log.error("engine_failed", role=role, reason=str(error))  # noqa: TRY400
                notifier.status(str(error))
                status = 2 if isinstance(error, ConfigError) else 1
        nursery.cancel_scope.cancel()
    return status


async def _serve(
    settings: Settings,
    role: Role,
    bridge: Bridge,
    doors: _Doors,
    stop: trio.Event,
    notifier: Notifier,
) -> None:
    options = ServerOptions(
        max_message_bytes=settings.limits.max_body_bytes,
        stream_window_bytes=settings.grpc.stream_window_bytes,
        connection_window_bytes=settings.grpc.connection_window_bytes,
        ping_s=settings.grpc.ping_s,
        ping_timeout_s=settings.grpc.ping_timeout_s,
        tls=serve_context(settings.grpc),
    )
    async with (
        _open_engine(settings, role, bridge) as engine,
        _scraped(engine, role, doors.scrapes),
        open_server_on(bridge, engine, doors.grpc, options) as server,
    ):
        status = await engine.control(ControlType(ControlType.GetStatus), {})
        log.info(
            "engine_ready",
            role=role,
            driver=settings.engine.driver,
            models=status["models"],
            slots=status["slots"],
            port=server.port,
        )
        notifier.ready(_described(server))
        # Holds the status line's task while the engine serves.
        async with trio.open_nursery() as serving:
            serving.start_soon(notifier.keep_status, lambda: _described(server))
            await stop.wait()
            serving.cancel_scope.cancel()
        log.info("engine_draining", role=role, running=server.running)
        notifier.stopping(
            f"draining, {_described(server)}", settings.limits.drain_s + STOP_MARGIN_S
        )
        await server.drain(settings.limits.drain_s)
    log.info("engine_stopped", role=role)


def _described(server: ArkServer) -> str:
    return f"{server.running} calls"


@asynccontextmanager
async def _open_engine(settings: Settings, role: Role, bridge: Bridge) -> AsyncIterator[Engine]:
    if settings.engine.driver == "echo":
        names = settings.engine.served_names or (ECHO_MODEL,)
        async with open_echo(role=role, names=names) as echo:
            yield echo
    elif settings.engine.driver != "llama":
        reason = f"{settings.engine.driver} is not available in this version"
        raise ConfigError(f"engine.driver: {reason}")
    elif role == "decoder":
        async with open_decoder(settings, bridge) as decoder:
            yield decoder
    else:
        async with open_prefiller(settings) as prefiller:
            yield prefiller


@asynccontextmanager
async def _scraped(
    engine: Engine, role: Role, listeners: Sequence[socket.socket]
) -> AsyncIterator[None]:
    """Have `engine` answer scrapes while the block runs, the drain included."""

    async def tell() -> bytes:
        return exposition(role, await engine.control(ControlType(ControlType.PullMetrics), {}))

    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(serve_scrapes, listener, tell)
        yield
        nursery.cancel_scope.cancel()


async def _obey_signals(
    stop: trio.Event,
    process: trio.CancelScope,
    ending: _Ending,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for signum in signals:
            if signum == signal.SIGINT or stop.is_set():
                ending.at_once = True
                process.cancel()
            else:
                stop.set()
