"""One decoder as the gateway knows it: its connection, what it serves, and whether it is ready."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from ark_trio.errors import ArkError, NotImplementedByEngine, Unreachable
from ark_trio.rpc.client import ArkChannel
from ark_trio.settings.address import Address
from ark_wire.inference import ControlType

log = structlog.get_logger()

WATCH_READY_S = 5.0
"""Time between two looks at a decoder that is ready."""
WATCH_AWAY_S = 1.0
"""Time between two looks at one that is not."""
WATCH_TIMEOUT_S = 5.0


@frozen(kw_only=True)
class Served:
    """What a decoder says that it serves."""

    models: tuple[str, ...]
    max_model_len: int | None = None
    """Tokens of prompt and answer together; None: it doesn't say."""


@define(kw_only=True, eq=False)
class Decoder:
    """A decoder and our own count of what it does for us."""

    address: Address
    default_models: tuple[str, ...]
    """What it is taken to serve if it can't say."""
    served: Served | None = None
    """None: it has not answered yet, or has stopped answering."""
    in_flight: int = 0
    _channel: ArkChannel | None = None
    _looked: trio.Event = field(factory=trio.Event)
    _found_away: trio.Event = field(factory=trio.Event)
    _struck_off: trio.Event = field(factory=trio.Event)
    _idle: trio.Event = field(factory=trio.Event)

    @property
    def ready(self) -> bool:
        """It answered when we last asked, and no call has found it away since."""
        return self.served is not None

    @property
    def open_streams(self) -> int:
        """Streams of gRPC to it."""
        return 0 if self._channel is None else self._channel.open_streams

    @contextmanager
    def lease(self) -> Iterator[ArkChannel]:
        """Lend the channel for one request, counted as running here for as long as the block lasts.

        Raises:
            Unreachable: the decoder is not open.
        """
        if self._channel is None:
            raise Unreachable("The engine behind this model is not there any more.")
        self.in_flight += 1
        try:
            yield self._channel
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    def mark_away(self) -> None:
        """Stop choosing it until it answers again: a call could not reach it."""
        self._see(None)
        self._found_away.set()

    def strike_off(self) -> None:
        """End `live` once the last request here has ended."""
        self._struck_off.set()

    async def first_look(self) -> None:
        """Wait until it has been asked once."""
        await self._looked.wait()

    async def live(self, channel: ArkChannel) -> None:
        """Be of service through `channel`, watched, until struck off and idle."""
        self._channel = channel
        try:
            async with trio.open_nursery() as watch:  # the watch ends where the drain begins
                watch.start_soon(self._watch, channel)
                await self._struck_off.wait()
                watch.cancel_scope.cancel()
            while self.in_flight:
                self._idle = trio.Event()
                await self._idle.wait()
        finally:
            self._channel = None

    async def _watch(self, channel: ArkChannel) -> None:
        """Ask again and again what it serves, at once when a call found it away."""
        while True:
            self._see(await self._ask(channel))
            self._looked.set()
            pause = WATCH_READY_S if self.ready else WATCH_AWAY_S
            self._found_away = trio.Event()
            with trio.move_on_after(pause * random.uniform(0.8, 1.2)):  # noqa: S311 (spreads them)
                await self._found_away.wait()

    async def _ask(self, channel: ArkChannel) -> Served | None:
        """Return what it serves, or None when it is away. Engines may know no Control at all."""
        with trio.move_on_after(WATCH_TIMEOUT_S):
            try:
                status = await channel.control(ControlType.GetStatus)
                return parse_served(status, self.default_models)
            except NotImplementedByEngine:
                return Served(models=self.default_models)
            except ArkError as error:
                log.debug("decoder_watch_failed", decoder=str(self.address), reason=error.message)
            except Exception:
                # Whatever one decoder says, the others go on being watched and the gateway lives.
                log.exception("decoder_watch_crashed", decoder=str(self.address))
        return None

    def _see(self, served: Served | None) -> None:
        if (served is None) != (self.served is None):
            log.info("decoder_changed", decoder=str(self.address), ready=served is not None)
        self.served = served


def parse_served(status: dict[str, Any], default_models: tuple[str, ...]) -> Served | None:
    """Read a GetStatus answer. None: it says that it is not a decoder, so no request may go there."""
    if status.get("role", "decoder") != "decoder":
        return None
    models, length = status.get("models"), status.get("max_model_len")
    return Served(
        models=tuple(str(name) for name in models)
        if isinstance(models, list) and models
        else default_models,
        max_model_len=length if isinstance(length, int) and length > 0 else None,
    )
