"""Keeps the fleet what the settings say, also when they change while requests run.

Each decoder is one task that owns its channel: it watches until the decoder is struck off, then waits until our last request
there has ended, and closes.
"""

from collections.abc import Iterable

import structlog
import trio
from attrs import define, field

from ark_trio.fleet.decoder import Decoder
from ark_trio.fleet.fleet import Fleet
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.client import open_channel
from ark_trio.settings.address import Address

log = structlog.get_logger()


@define(kw_only=True, eq=False)
class Roster:
    """The tasks of the decoders, in a nursery of the gateway's."""

    bridge: Bridge
    nursery: trio.Nursery
    fleet: Fleet = field(factory=Fleet)

    def apply(
        self, addresses: Iterable[Address], options: ChannelOptions, default_models: tuple[str, ...]
    ) -> None:
        """Have exactly the decoders at `addresses`. Those that stay keep their channel and its options."""
        wanted = list(dict.fromkeys(addresses))
        for decoder in tuple(self.fleet.decoders):
            decoder.default_models = default_models
            if decoder.address not in wanted:
                log.info("decoder_struck_off", decoder=str(decoder.address))
                self.fleet.decoders.remove(decoder)
                decoder.strike_off()
        known = {decoder.address for decoder in self.fleet.decoders}
        for address in wanted:
            if address not in known:
                decoder = Decoder(address=address, default_models=default_models)
                self.fleet.decoders.append(decoder)
                self.nursery.start_soon(self._own, decoder, options)

    async def first_look(self) -> None:
        """Wait until every decoder has been asked once."""
        for decoder in tuple(self.fleet.decoders):
            await decoder.first_look()

    async def _own(self, decoder: Decoder, options: ChannelOptions) -> None:
        address = decoder.address
        async with open_channel(self.bridge, address.host, address.port, options) as channel:
            await decoder.live(channel)
