"""What callers send, as label values: few, whatever they send."""

from attrs import define, field

from ark_trio.protocol.endpoints import ENDPOINTS

OTHER = "other"
MAX_MODELS = 128
"""Models told apart; a decoder may name as many as it likes."""
MAX_CHARS = 128
MAX_KEYS = 1000
"""Pairs of a key and a model told apart."""

_UNLISTED = ("/openapi.json", "/docs", "/metrics", "/admin/status")
_PATHS = frozenset((*(each.path.removeprefix("/v1") for each in ENDPOINTS), *_UNLISTED))
_OPEN_ENDED = {path.partition("{")[0]: path for path in _PATHS if "{" in path}
"""What a path with a name in it begins with, and how it is told."""


def endpoint_of(path: str) -> str:
    """Return the endpoint of a path: without /v1, names in it left out, `other` where there is none."""
    path = path.removeprefix("/v1")
    if path in _PATHS:
        return path
    return next((whole for begin, whole in _OPEN_ENDED.items() if path.startswith(begin)), OTHER)


@define(eq=False)
class ModelNames:
    """Models that decoders of ours have served, each remembered for as long as the process lives."""

    _known: set[str] = field(factory=set)

    def learn(self, name: str) -> None:
        """Take the name of a model that a decoder serves."""
        if len(self._known) < MAX_MODELS and len(name) <= MAX_CHARS:
            self._known.add(name)

    def label(self, name: str | None) -> str:
        """Return it as a label: empty for requests that name none, `other` for one that nobody has served."""
        if name is None:
            return ""
        return name if name in self._known else OTHER


@define(eq=False)
class KeyNames:
    """Names of keys that have asked, each with the models it asked, remembered for as long as the process lives."""

    _known: set[tuple[str, str]] = field(factory=set)

    def labels(self, key: str, model: str) -> tuple[str, str]:
        """Return a key's name and a model's label; of pairs beyond `MAX_KEYS` the key is `other`."""
        pair = (key, model)
        if pair not in self._known:
            if len(self._known) >= MAX_KEYS:
                return (OTHER, model)
            self._known.add(pair)
        return pair
