"""The decoders together: which models there are, and which decoder takes a request."""

import random

from attrs import define, field

from ark_trio.errors import Unavailable
from ark_trio.fleet.decoder import Decoder, Served
from ark_trio.protocol.models import unknown_model


@define(kw_only=True, eq=False)
class Fleet:
    """All decoders that the settings name."""

    decoders: list[Decoder] = field(factory=list)

    @property
    def ready(self) -> bool:
        """Some decoder can take a request."""
        return any(decoder.ready for decoder in self.decoders)

    def models(self) -> dict[str, Served]:
        """Return what the ready decoders serve, by name, in the order of the settings."""
        found: dict[str, Served] = {}
        for decoder in self.decoders:
            if decoder.served is not None:
                for name in decoder.served.models:
                    found.setdefault(name, decoder.served)
        return found

    def choose(self, model: str) -> Decoder:
        """Return the ready decoder of `model` with the fewest requests of ours; ties at random.

        Raises:
            UnknownModel: decoders are ready, but none serves `model`.
            Unavailable: no decoder is ready.
        """
        serving = [d for d in self.decoders if d.served is not None and model in d.served.models]
        if serving:
            fewest = min(decoder.in_flight for decoder in serving)
            return random.choice([d for d in serving if d.in_flight == fewest])  # noqa: S311
        if not self.ready:
            raise Unavailable("No engine is ready to serve this model now. Try again shortly.")
        raise unknown_model(model, self.models())
