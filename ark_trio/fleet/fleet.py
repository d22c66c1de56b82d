"""The decoders together: which models there are, and which decoder takes a request."""

import random
from collections.abc import Collection, Mapping

import trio
from attrs import define, field, frozen

from ark_trio.config import Policy
from ark_trio.errors import Unavailable
from ark_trio.fleet.choice import by_key, by_load, in_turn
from ark_trio.fleet.decoder import Decoder
from ark_trio.fleet.ejection import not_ejected
from ark_trio.fleet.probe import Served
from ark_trio.protocol.models import unknown_model


@frozen(kw_only=True)
class ChoiceRules:
    """How a decoder is chosen."""

    policy: Policy = "affinity"
    aliases: Mapping[str, str] = field(factory=dict)
    """Other names of models."""
    panic_share: float = 0.3
    """If fewer of a model's decoders than this are not ejected, all are asked."""


@define(kw_only=True, eq=False)
class Fleet:
    """All decoders that requests may go to, and those that finish what they have."""

    decoders: list[Decoder] = field(factory=list)
    leaving: list[Decoder] = field(factory=list)
    rules: ChoiceRules = field(factory=ChoiceRules)
    _dice: random.Random = field(factory=random.Random)  # noqa: S311 (chooses decoders)
    _turns: int = 0

    @property
    def ready(self) -> bool:
        """Some decoder can take a request."""
        return any(decoder.ready for decoder in self.decoders)

    def models(self) -> dict[str, Served]:
        """Return what the ready decoders serve, by name, in the order of the settings; then its other names."""
        found: dict[str, Served] = {}
        for decoder in self.decoders:
            if decoder.served is not None:
                for name in decoder.served.models:
                    found.setdefault(name, decoder.served)
        for alias, model in self.rules.aliases.items():
            if model in found:
                found[alias] = found[model]
        return found

    def true_name(self, model: str) -> str:
        """Return the name by which decoders know `model`."""
        return self.rules.aliases.get(model, model)

    def serving(self, model: str) -> list[Decoder]:
        """Return the decoders that are well and serve `model`."""
        name = self.true_name(model)
        return [d for d in self.decoders if d.served is not None and name in d.served.models]

    def choose(self, model: str, key: bytes | None = None) -> Decoder:
        """Return the decoder that a request for `model` goes to; `key` binds it to others.

        Raises:
            UnknownModel: decoders are ready, but none serves `model`.
            Unavailable: no decoder of it is ready.
        """
        if serving := self.serving(model):
            return self._choose(serving, key)
        name = self.true_name(model)
        if not self.ready or any(
            d.last_served is not None and name in d.last_served.models for d in self.decoders
        ):
            raise Unavailable("No engine is ready to serve this model now. Try again shortly.")
        raise unknown_model(model, self.models())

    def another(self, model: str, key: bytes | None, tried: Collection[Decoder]) -> Decoder | None:
        """Return a decoder that has not been tried, or None."""
        left = [decoder for decoder in self.serving(model) if decoder not in tried]
        return self._choose(left, key) if left else None

    def _choose(self, serving: list[Decoder], key: bytes | None) -> Decoder:
        now = trio.current_time()
        out = [decoder for decoder in serving if decoder.ejection.out(now)]
        asked = [*not_ejected(serving, out, panic_share=self.rules.panic_share)] if out else serving
        if self.rules.policy == "round_robin":
            chosen = in_turn(asked)
        elif key is not None and self.rules.policy != "power_of_two":
            chosen = by_key(asked, key, now)
        else:
            chosen = by_load(asked, now, self._dice)
        self._turns += 1
        chosen.load.chosen = self._turns
        return chosen
