"""A KV state on its way from a prefiller to a decoder: its header, what is checked, and the file at either end."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs
from attrs import field, frozen
from attrs.validators import and_, ge, instance_of, max_len

from ark_trio.errors import BadBackend

CHUNK_BYTES = 1 << 20
HEADER_KEY = "prefill.header"
CHUNK_KEY = "prefill.chunk"

_MAX_BYTES_A_TOKEN = 4 << 20
_MAX_BYTES_BESIDE = 4 << 20
"""Bounds on a state: the largest models need about 1 MiB a token."""

_TEXT = and_(instance_of(str), max_len(256))
_COUNT = and_(instance_of(int), ge(0))


@frozen(kw_only=True)
class StateHeader:
    """What a prefiller says of a state before its bytes."""

    model: str = field(validator=_TEXT)
    """sha256 of the model file."""
    build: str = field(validator=_TEXT)
    kv_type: str = field(validator=_TEXT)
    tokens: int = field(validator=_COUNT)
    bytes: int = field(validator=_COUNT)
    sha256: str = field(validator=_TEXT)
    """Of the state's bytes."""
    evaluated: int = field(default=0, validator=_COUNT)
    """Tokens that were computed for it, by the engine's own timings."""
    cached: int = field(default=0, validator=_COUNT)
    """Tokens found in the prefiller's cache."""
    prefill_ms: float = field(default=0.0, converter=float)


@frozen(kw_only=True)
class Origin:
    """What both ends of a hand-over must have in common."""

    model: str
    build: str
    kv_type: str


def parse_header(value: Any, origin: Origin, tokens: int) -> StateHeader:
    """Read and check a header for a state of `tokens` tokens.

    Raises:
        BadBackend: it is malformed, or the state isn't one for this engine; the message says what differs.
    """
    known = attrs.fields_dict(StateHeader)
    given = value if isinstance(value, Mapping) else {}
    try:
        header = StateHeader(**{key: item for key, item in given.items() if key in known})
    except (TypeError, ValueError) as error:
        raise BadBackend("The prefiller's header is malformed.") from error
    expected = {**attrs.asdict(origin), "tokens": tokens}
    different = [name for name, wanted in expected.items() if getattr(header, name) != wanted]
    if different:
        raise BadBackend(f"The prefiller's state does not fit: {', '.join(different)} differ.")
    if header.bytes > tokens * _MAX_BYTES_A_TOKEN + _MAX_BYTES_BESIDE:
        raise BadBackend("The prefiller's state is larger than any of so many tokens.")
    return header


def read_digest(path: Path) -> tuple[int, str]:
    """Return a file's size and sha256. Blocking."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in chunks. Blocking."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class StateWriter:
    """Writes a state's chunks to a file and holds them to the header. Blocking."""

    def __init__(self, file: BinaryIO, header: StateHeader) -> None:
        self._file = file
        self._header = header
        self._digest = hashlib.sha256()
        self._bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Write a chunk.

        Raises:
            BadBackend: it is too large, or more than was announced.
        """
        self._bytes += len(chunk)
        if len(chunk) > CHUNK_BYTES or self._bytes > self._header.bytes:
            raise BadBackend("The prefiller sent more than it announced.")
        self._digest.update(chunk)
        self._file.write(chunk)

    def end(self) -> None:
        """Check the whole.

        Raises:
            BadBackend: bytes are missing or damaged.
        """
        self._file.flush()
        if (self._bytes, self._digest.hexdigest()) != (self._header.bytes, self._header.sha256):
            raise BadBackend("The prefiller's state arrived incomplete or damaged.")
