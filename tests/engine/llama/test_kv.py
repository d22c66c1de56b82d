"""What is checked of a state that comes from elsewhere."""

import hashlib
import io
from pathlib import Path
from typing import Any

import attrs
import pytest

from ark_trio.engine.llama.kv import (
    CHUNK_BYTES,
    Origin,
    StateHeader,
    StateWriter,
    parse_header,
    read_chunks,
    read_digest,
)
from ark_trio.errors import BadBackend

ORIGIN = Origin(model="m" * 64, build="b 1", kv_type="1/1/-1")


def header(state: bytes = b"state", **changes: Any) -> dict[str, Any]:
    said = {
        **attrs.asdict(ORIGIN),
        "tokens": 3,
        "bytes": len(state),
        "sha256": hashlib.sha256(state).hexdigest(),
        "evaluated": 3,
        "cached": 0,
        "prefill_ms": 1.5,
    }
    return {**said, **changes}


def test_a_fitting_header_is_read():
    assert parse_header(header(), ORIGIN, 3) == StateHeader(**header())


def test_unknown_keys_pass():
    parse_header(header(colour="red"), ORIGIN, 3)


@pytest.mark.parametrize("name", ["model", "build", "kv_type"])
def test_a_state_of_another_engine_is_refused_naming_what_differs(name: str):
    with pytest.raises(BadBackend, match=name):
        parse_header({**header(), name: "other"}, ORIGIN, 3)


def test_a_state_of_other_tokens_is_refused():
    with pytest.raises(BadBackend, match="tokens"):
        parse_header(header(), ORIGIN, 4)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        header(tokens="3"),
        header(bytes=-1),
        header(sha256=None),
        header(prefill_ms="soon"),
        header(model="m" * 300),
    ],
)
def test_a_malformed_header_is_refused(said: Any):
    with pytest.raises(BadBackend, match="malformed"):
        parse_header(said, ORIGIN, 3)


def test_a_state_larger_than_can_be_is_refused():
    with pytest.raises(BadBackend, match="larger"):
        parse_header(header(bytes=1 << 40), ORIGIN, 3)


def write(said: dict[str, Any], *chunks: bytes) -> bytes:
    file = io.BytesIO()
    writer = StateWriter(file, StateHeader(**said))
    for chunk in chunks:
        writer.feed(chunk)
    writer.end()
    return file.getvalue()


def test_a_whole_state_is_written():
    assert write(header(), b"st", b"", b"ate") == b"state"


@pytest.mark.parametrize(
    "chunks", [(b"stat",), (b"statf",), (b"state", b"!"), (), (b"x" * (CHUNK_BYTES + 1),)]
)
def test_a_short_long_or_changed_state_is_refused(chunks: tuple[bytes, ...]):
    with pytest.raises(BadBackend):
        write(header(), *chunks)


def test_a_chunk_over_the_contracts_size_is_refused():
    state = b"x" * (CHUNK_BYTES + 1)
    with pytest.raises(BadBackend):
        write(header(state), state)
    assert write(header(state), state[:CHUNK_BYTES], state[CHUNK_BYTES:]) == state


def test_a_file_is_read_in_chunks(tmp_path: Path):
    path = tmp_path / "s"
    path.write_bytes(b"x" * (2 * CHUNK_BYTES + 5))
    assert [len(chunk) for chunk in read_chunks(path)] == [CHUNK_BYTES, CHUNK_BYTES, 5]
    assert read_digest(path) == (
        2 * CHUNK_BYTES + 5,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
