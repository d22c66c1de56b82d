"""What the settings say of the fleet, as its parts take it."""

from collections.abc import Mapping
from functools import cached_property

from attrs import field, frozen

from ark_trio.config import Settings
from ark_trio.fleet.decoder import WatchRules
from ark_trio.fleet.ejection import EjectionRules
from ark_trio.fleet.fleet import ChoiceRules
from ark_trio.fleet.names import Resolver
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.options import channel_options
from ark_trio.settings.address import Address


@frozen(kw_only=True)
class Plan:
    """Which decoders there are to be, and how they are watched and chosen."""

    targets: tuple[Address, ...]
    """Addresses, and names whose addresses are followed."""
    models: tuple[str, ...]
    """What decoders serve that can't say: names, or NAME@host:port for one of `targets`."""
    options: ChannelOptions = field(factory=ChannelOptions)
    resolver: Resolver = field(factory=Resolver)
    watch: WatchRules = field(factory=WatchRules)
    rise: int = 2
    fall: int = 2
    ejection: EjectionRules = field(factory=EjectionRules)
    choice: ChoiceRules = field(factory=ChoiceRules)

    def models_of(self, target: Address) -> tuple[str, ...]:
        """Return what the decoders at `target` are taken to serve if they can't say."""
        return self._models_at.get(str(target), self._models_elsewhere)

    @cached_property
    def _models_at(self) -> Mapping[str, tuple[str, ...]]:
        """By the targets that have models of their own."""
        places = {str(each) for each in self.targets}
        found: dict[str, tuple[str, ...]] = {}
        for name, _, place in (item.rpartition("@") for item in self.models):
            if place in places:
                found[place] = (*found.get(place, ()), name)
        return found

    @cached_property
    def _models_elsewhere(self) -> tuple[str, ...]:
        """A name may have an @ in it."""
        return tuple(item for item in self.models if item.rpartition("@")[2] not in self._models_at)


def plan_of(settings: Settings) -> Plan:
    """Return what `settings` say.

    Raises:
        ConfigError: certificates are not what they should be.
    """
    fleet = settings.fleet
    return Plan(
        targets=settings.decoders,
        models=settings.models,
        options=channel_options(settings),
        resolver=Resolver(family=fleet.dns_family, servers=fleet.dns_servers),
        watch=WatchRules(every_s=fleet.probe_s, timeout_s=fleet.probe_timeout_s),
        rise=fleet.rise,
        fall=fleet.fall,
        ejection=EjectionRules(
            faults=fleet.eject_faults, first_s=fleet.eject_s, longest_s=fleet.eject_longest_s
        ),
        choice=ChoiceRules(
            policy=fleet.policy,
            aliases=dict(_alias(item) for item in fleet.aliases),
            panic_share=fleet.panic_percent / 100,
        ),
    )


def _alias(item: str) -> tuple[str, str]:
    alias, _, model = item.partition("=")
    return alias.strip(), model.strip()
