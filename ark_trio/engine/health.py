"""Is an engine well? By its own word where it has one, else by its port: engines may know no Control at all."""

from collections.abc import Sequence

import structlog
import trio

from ark_trio.config import Settings
from ark_trio.errors import ArkError, Unavailable
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.client import open_channel
from ark_trio.rpc.options import channel_options
from ark_trio.settings.address import Address
from ark_trio.systemd import Notifier
from ark_wire.inference import ControlType

log = structlog.get_logger()

PROBE_S = 5.0
"""Time for one look."""
PAUSE_S = 0.5
"""Time between two looks while waiting."""
GRACE_S = 10.0
"""What the service manager is asked to wait beyond the longest wait."""


async def is_healthy(
    bridge: Bridge, address: Address, options: ChannelOptions | None = None
) -> bool:
    """Ask HealthCheck. An engine that does not answer it as an ARK engine would is well when its port accepts."""
    if not await accepts(address):
        return False
    with trio.move_on_after(PROBE_S):
        async with open_channel(bridge, address.host, address.port, options) as channel:
            try:
                answer = await channel.control(ControlType.HealthCheck)
            except ArkError:
                return True
            return bool(answer.get("status", "ok") == "ok")
    return True


async def accepts(address: Address) -> bool:
    """Whether the port takes a connection."""
    with trio.move_on_after(PROBE_S):
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
        except OSError:
            return False
        await stream.aclose()
        return True
    return False


async def wait_for_prefiller(bridge: Bridge, settings: Settings, notifier: Notifier) -> None:
    """Wait until one of the decoder's prefillers is well, if it is to wait at all.

    Raises:
        Unavailable: none was within the time that is set.
    """
    wait_s, prefillers = settings.engine.prefiller_wait_s, settings.prefillers
    if not (wait_s and prefillers) or settings.engine.local_prefill:
        return
    notifier.starting("waiting for a prefiller", wait_s + GRACE_S)
    log.info("prefiller_awaited", prefillers=[str(address) for address in prefillers])
    # A private prefiller is known by its driver's port, which does not speak gRPC.
    by_port = settings.engine.driver == "xllm"
    with trio.move_on_after(wait_s):
        options = channel_options(settings)
        while True:
            if await _any_healthy(bridge, prefillers, options, by_port=by_port):
                return
            await trio.sleep(PAUSE_S)
    raise Unavailable("no prefiller is healthy")


async def _any_healthy(
    bridge: Bridge, addresses: Sequence[Address], options: ChannelOptions, *, by_port: bool
) -> bool:
    for address in addresses:
        if await (accepts(address) if by_port else is_healthy(bridge, address, options)):
            return True
    return False
