"""One decoder as the gateway knows it: its connection, what it serves, and whether it is ready."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from ark_trio.errors import ArkError, NotImplementedByEngine
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
    channel: ArkChannel
    served: Served | None = None
    """None: it has not answered yet, or has stopped answering."""
    in_flight: int = 0
    _looked: trio.Event = field(factory=trio.Event)
    _found_away: trio.Event = field(factory=trio.Event)

    @property
    def ready(self) -> bool:
        """It answered when we last asked, and no call has found it away since."""
        return self.served is not None

    @contextmanager
    def lease(self) -> Iterator["Decoder"]:
        """Count one request as running here for as long as the block lasts."""
        self.in_flight += 1
        try:
            yield self
        finally:
            self.in_flight -= 1

    def mark_away(self) -> None:
        """Stop choosing it until it answers again: a call could not reach it."""
        self._see(None)
        self._found_away.set()

    async def first_look(self) -> None:
        """Wait until `watch` has asked once."""
        await self._looked.wait()

    async def watch(self, default_models: tuple[str, ...]) -> None:
        """Ask again and again what it serves, at once when a call found it away. Runs until cancelled."""
        while True:
            self._see(await self._ask(default_models))
            self._looked.set()
            pause = WATCH_READY_S if self.ready else WATCH_AWAY_S
            self._found_away = trio.Event()
            with trio.move_on_after(pause * random.uniform(0.8, 1.2)):  # noqa: S311 (spreads the load)
                await self._found_away.wait()

    async def _ask(self, default_models: tuple[str, ...]) -> Served | None:
        """Return what it serves, or None when it is away. Engines may know no Control at all."""
        with trio.move_on_after(WATCH_TIMEOUT_S):
            try:
                return parse_served(
                    await self.channel.control(ControlType.GetStatus), default_models
                )
            except NotImplementedByEngine:
                return Served(models=default_models)
            except ArkError as error:
                log.debug("decoder_watch_failed", decoder=str(self.address), reason=error.message)
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
