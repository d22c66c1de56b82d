"""One input: what a client sends, in which pieces, how slowly, and how it leaves. Made from a seed, kept as JSON."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal

import orjson
from attrs import frozen

from tests.fuzz.http1 import http1
from tests.fuzz.http2 import http2
from tests.fuzz.mutate import mutate
from tests.fuzz.upgrade import upgrade

Ending = Literal["close", "reset", "half-close"]

GRAMMARS = {"http1": http1, "http2": http2, "upgrade": upgrade}
FOUND = Path(__file__).with_name("found")


@frozen(kw_only=True)
class Play:
    """What a client does."""

    seed: str
    grammar: str
    pieces: tuple[bytes, ...]
    pauses_s: tuple[float, ...]
    """Before each piece."""
    ending: Ending

    @property
    def sent(self) -> bytes:
        """All that it sends."""
        return b"".join(self.pieces)

    def to_json(self) -> bytes:
        """Return it as kept in `found/`: bytes as text, a character each, so that people can read them."""
        value = {
            "seed": self.seed,
            "grammar": self.grammar,
            "ending": self.ending,
            "pauses_s": self.pauses_s,
            "pieces": [piece.decode("latin-1") for piece in self.pieces],
        }
        return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"


def load_play(path: Path) -> Play:
    """Read what `to_json` wrote."""
    value: dict[str, Any] = orjson.loads(path.read_bytes())
    return Play(
        seed=value["seed"],
        grammar=value["grammar"],
        ending=value["ending"],
        pauses_s=tuple(value["pauses_s"]),
        pieces=tuple(piece.encode("latin-1") for piece in value["pieces"]),
    )


def make_play(seed: str) -> Play:
    """Make the input of a seed: always the same."""
    rng = Random(seed)
    grammar = rng.choices(list(GRAMMARS), weights=[5, 5, 2])[0]
    data = GRAMMARS[grammar](rng)
    for _ in range(rng.choices([0, 1, 2, 8], weights=[4, 4, 2, 1])[0]):
        data = mutate(data, rng)
    pieces = tuple(_cut(data, rng))
    slow = rng.random() < 0.15
    return Play(
        seed=seed,
        grammar=grammar,
        pieces=pieces,
        pauses_s=tuple(rng.uniform(0, 0.01) if slow else 0.0 for _ in pieces),
        ending=rng.choices(("close", "reset", "half-close"), weights=[5, 3, 2])[0],
    )


def _cut(data: bytes, rng: Random) -> Iterator[bytes]:
    """Cut it into pieces, and sometimes leave the rest out."""
    if rng.random() < 0.15:
        data = data[: rng.randrange(len(data) + 1)]
    how = rng.random()
    if how < 0.6:
        yield data
    elif how < 0.95 or len(data) > 200:
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 6)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if start < end:
                yield data[start:end]
    else:
        for at in range(len(data)):
            yield data[at : at + 1]
