"""Keeps the fleet what settings and DNS say, also when they change while requests run.

Each decoder is one task that owns its channel: it watches until the decoder is struck off, then waits until our last request
there has ended, and closes. Each name that the settings give is one more task, which follows its addresses.
"""

from collections.abc import Iterable, Sequence

import structlog
import trio
from attrs import define, evolve, field

from ark_trio.fleet.decoder import Decoder
from ark_trio.fleet.ejection import Ejection
from ark_trio.fleet.fleet import Fleet
from ark_trio.fleet.health import Health
from ark_trio.fleet.names import Lookup, follow, is_name
from ark_trio.fleet.plan import Plan
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.client import open_channel
from ark_trio.settings.address import Address

log = structlog.get_logger()


@define(eq=False)
class _Name:
    """A name of the plan, and what it stands for now."""

    following: trio.CancelScope = field(factory=trio.CancelScope)
    hosts: tuple[str, ...] = ()
    looked_up: trio.Event = field(factory=trio.Event)


@define(kw_only=True, eq=False)
class Roster:
    """The tasks of the decoders and of the names, in a nursery of the gateway's."""

    bridge: Bridge
    nursery: trio.Nursery
    fleet: Fleet = field(factory=Fleet)
    _plan: Plan | None = None
    _names: dict[Address, _Name] = field(factory=dict)

    def apply(self, plan: Plan) -> None:
        """Have exactly the decoders of `plan`. Those that stay keep their channel and its options but the certificates."""
        old, self._plan = self._plan, plan
        self.fleet.rules = plan.choice
        same_resolver = old is not None and old.resolver == plan.resolver
        followed, self._names = self._names, {}
        for target in filter(is_name, plan.targets):
            before = followed.get(target)
            if before is not None and same_resolver:
                self._names[target] = followed.pop(target)
            elif target not in self._names:
                # What was known stays until the other resolver has answered.
                self._names[target] = name = _Name(hosts=before.hosts if before else ())
                self.nursery.start_soon(self._follow, target, name, plan.resolver.lookup)
        for name in followed.values():
            name.following.cancel()
        self._settle(plan)

    async def first_look(self) -> None:
        """Wait until every name has been looked up and every decoder looked at once."""
        for name in [*self._names.values()]:
            await name.looked_up.wait()
        for decoder in [*self.fleet.decoders]:
            await decoder.first_look()

    def _settle(self, plan: Plan) -> None:
        """Take on who is new, strike off who is gone."""
        wanted = self._addresses(plan.targets)
        for struck_off in [d for d in self.fleet.decoders if d.address not in wanted]:
            self._strike_off(struck_off)
        known = {decoder.address: decoder for decoder in self.fleet.decoders}
        for address, target in wanted.items():
            decoder = known.get(address)
            if decoder is not None:
                decoder.renew(plan.options.tls)
                decoder.default_models = plan.models_of(target)
                decoder.rules, decoder.ejection.rules = plan.watch, plan.ejection
                decoder.health.rise, decoder.health.fall = plan.rise, plan.fall
            else:
                self._take_on(address, target, plan)
        order = {address: place for place, address in enumerate(wanted)}
        self.fleet.decoders.sort(key=lambda decoder: order[decoder.address])

    def _addresses(self, targets: Iterable[Address]) -> dict[Address, Address]:
        """Return where decoders are, and by which target they are known; the first counts."""
        found: dict[Address, Address] = {}
        for target in targets:
            hosts: Sequence[str] = (target.host,)
            if target in self._names:
                hosts = self._names[target].hosts
            for host in hosts:
                found.setdefault(Address(host=host, port=target.port), target)
        return found

    def _take_on(self, address: Address, target: Address, plan: Plan) -> None:
        decoder = Decoder(
            address=address,
            default_models=plan.models_of(target),
            rules=plan.watch,
            health=Health(rise=plan.rise, fall=plan.fall),
            ejection=Ejection(rules=plan.ejection),
        )
        self.fleet.decoders.append(decoder)
        name = (
            plan.options.server_name or target.host
        )  # its certificate is for the name, not for the address behind it
        self.nursery.start_soon(self._own, decoder, evolve(plan.options, server_name=name))

    def _strike_off(self, decoder: Decoder) -> None:
        log.info("decoder_struck_off", decoder=str(decoder.address))
        self.fleet.decoders.remove(decoder)
        self.fleet.leaving.append(decoder)
        decoder.strike_off()

    async def _follow(self, target: Address, name: _Name, lookup: Lookup) -> None:
        def tell(hosts: tuple[str, ...]) -> None:
            name.hosts = hosts
            if self._plan is not None:
                self._settle(self._plan)
            name.looked_up.set()

        with name.following:
            await follow(target.host, lookup, tell)

    async def _own(self, decoder: Decoder, options: ChannelOptions) -> None:
        address = decoder.address
        try:
            async with open_channel(self.bridge, address.host, address.port, options) as channel:
                await decoder.live(channel)
        finally:
            if decoder in self.fleet.leaving:
                self.fleet.leaving.remove(decoder)
