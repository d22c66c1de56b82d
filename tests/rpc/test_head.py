"""What an engine reads out of a call's head."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hpack import Decoder, Encoder, InvalidTableSizeError, NeverIndexedHeaderTuple
from hypothesis import given

from ark_trio.rpc.head import spell_head

ROUTE = "/inference.Inference/StreamingCall"
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=600)


@given(st.sampled_from(["http", "https"]), VALUES, st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_every_field_is_read_as_it_was_meant(scheme, authority, metadata):
    fields: list[Any] = [*Decoder(1 << 20).decode(spell_head(scheme, authority, ROUTE, metadata))]
    head = [(":method", "POST"), (":scheme", scheme), (":path", ROUTE), (":authority", authority)]
    assert fields[:4] == head
    assert ("te", "trailers") in fields
    assert ("content-type", "application/grpc") in fields
    assert fields[7:] == metadata


@pytest.mark.parametrize("size", [0, 126, 127, 128, 254, 255, 256, 20_000])
def test_a_value_of_any_length_is_read_whole(size: int):
    fields: list[Any] = [("a" * max(1, size), "b" * size), ("c", "d")]
    assert [*Decoder(1 << 20).decode(spell_head("http", "h", ROUTE, fields))][7:] == fields


def test_ids_are_never_indexed():
    *_, last = Decoder().decode(spell_head("http", "h", ROUTE, [("x-request-id", "a")]))
    assert isinstance(last, NeverIndexedHeaderTuple)


def test_the_head_means_the_same_on_a_connection_that_has_a_table():
    decoder, encoder = Decoder(), Encoder()
    decoder.decode(encoder.encode([("te", "other"), ("x-request-id", "b")]))
    assert dict(decoder.decode(spell_head("http", "h", ROUTE, [("x-request-id", "a")]))) == dict(
        Decoder().decode(spell_head("http", "h", ROUTE, [("x-request-id", "a")]))
    )


def test_an_engine_that_wants_no_table_hears_that_there_is_none():
    strict = Decoder()
    strict.max_allowed_table_size = 0
    with pytest.raises(InvalidTableSizeError):
        strict.decode(Encoder().encode([("te", "trailers")]))
    for _ in range(2):
        assert strict.decode(spell_head("http", "h", ROUTE, []))
