"""The decoder and the prefiller as processes: load, listen, say so, and stop as signals ask."""

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import structlog
import trio

from ark_trio.config import Settings
from ark_trio.engine.echo.engine import open_echo
from ark_trio.engine.llama.decoder import open_decoder
from ark_trio.engine.llama.prefiller import open_prefiller
from ark_trio.errors import ConfigError
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.rpc.server import Engine, bind_tcp, open_server_on
from ark_trio.rpc.server_connection import ServerOptions
from ark_wire.inference import ControlType

log = structlog.get_logger()

Role = Literal["decoder", "prefiller"]

ECHO_MODEL = "echo"
"""What the echo engine's model is called unless served names are configured."""


def run_decoder(settings: Settings) -> int:
    """Serve a decoder until a signal ends it; return the exit status."""
    return _run(settings, "decoder")


def run_prefiller(settings: Settings) -> int:
    """Serve a prefiller until a signal ends it; return the exit status."""
    return _run(settings, "prefiller")


def _run(settings: Settings, role: Role) -> int:
    # The port comes first: that it is taken should be known before a model is loaded.
    try:
        listener = bind_tcp(settings.grpc_bind.host, settings.grpc_bind.port)
    except OSError as error:
        reason = f"can't listen on {settings.grpc_bind}: {error.strerror or error}"
        log.error("engine_failed", role=role, reason=reason)  # noqa: TRY400 (one line for the operator)
        return 1
    with listener:
        return trio.run(_supervise, settings, role, listener)


async def _supervise(settings: Settings, role: Role, listener: socket.socket) -> int:
    """Serve until told to stop. SIGTERM lets calls finish; a second one, or SIGINT, ends at once."""
    stop = trio.Event()
    # The process's nursery: the service beside the task that hears signals.
    async with trio.open_nursery() as nursery:
        await nursery.start(_obey_signals, stop, nursery.cancel_scope)
        status = 0
        async with open_bridge() as bridge:
            # Inside every nursery, so that it arrives as itself and not in a group.
            try:
                await _serve(settings, role, bridge, listener, stop)
            except ConfigError as error:
                log.error("engine_failed", role=role, reason=str(error))  # noqa: TRY400
                status = 2
        nursery.cancel_scope.cancel()
    return status


async def _serve(
    settings: Settings, role: Role, bridge: Bridge, listener: socket.socket, stop: trio.Event
) -> None:
    options = ServerOptions(
        max_message_bytes=settings.limits.max_body_bytes,
        stream_window_bytes=settings.grpc.stream_window_bytes,
        connection_window_bytes=settings.grpc.connection_window_bytes,
        ping_s=settings.grpc.ping_s,
        ping_timeout_s=settings.grpc.ping_timeout_s,
    )
    async with (
        _open_engine(settings, role, bridge) as engine,
        open_server_on(bridge, engine, listener, options) as server,
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
        await stop.wait()
        log.info("engine_draining", role=role, running=server.running)
        await server.drain(settings.limits.drain_s)
    log.info("engine_stopped", role=role)


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


async def _obey_signals(
    stop: trio.Event,
    process: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for signum in signals:
            if signum == signal.SIGINT or stop.is_set():
                process.cancel()
            else:
                stop.set()
