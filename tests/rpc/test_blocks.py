"""Header blocks that pass h2, beside the same connection on which h2 reads each of them."""

from typing import Any

import pytest
from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.rpc.blocks import MAX_BLOCK_BYTES, MAX_BLOCKS, KnownBlocks
from tests.support.cuts import PLACES, cut
from tests.support.engine_line import Side

HEAD = b"\x88\x0f\x10\x10application/grpc"
OK = b"\x00\x0bgrpc-status\x010"
OK_FOR_THE_TABLE = b"\x40" + OK[1:]
OK_FROM_THE_TABLE = b"\xbe"


def headers(stream: int, block: bytes, *flags: str) -> bytes:
    flags = ("END_HEADERS", *flags)
    return HeadersFrame(stream, block, flags=[*flags]).serialize()


def data(stream: int, payload: bytes, *flags: str) -> bytes:
    return DataFrame(stream, data=payload, flags=[*flags]).serialize()


def message(text: bytes) -> bytes:
    return b"\0" + len(text).to_bytes(4, "big") + text


# Fields in all of HPACK's ways (RFC 7541, 6), good ones and bad.

NAMES = st.sampled_from(
    [b"a", b"grpc-status", b"content-length", b":status", b"Upper", b"", b"caf\xe9", b":path"]
)
VALUES = st.sampled_from([b"0", b"12", b"200", b"103", b"\xff", b"", b" x", b"y" * 40])


def literal(first: int, name: bytes, value: bytes) -> bytes:
    return bytes([first, len(name)]) + name + bytes([len(value)]) + value


def named(first: int, index: int, value: bytes) -> bytes:
    return bytes([first | index, len(value)]) + value


A_FIELD = st.one_of(
    st.sampled_from(
        [HEAD, OK, b"\x88", b"\x8d", OK_FOR_THE_TABLE, b"\xbe", b"\xbf", b"\xc0", b"\x80"]
    ),
    st.builds(literal, st.sampled_from([0x00, 0x10, 0x40]), NAMES, VALUES),
    st.builds(named, st.just(0x00), st.integers(1, 14), VALUES),
    st.builds(named, st.just(0x40), st.integers(1, 62), VALUES),
    st.sampled_from(
        [b"\x20", b"\x3e", b"\x3f\xe1\x1f", b"\x3f\xe2\x1f"]
    ),  # sizes: 0, 30, 4096, 4097
    st.just(b"\x00\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x010"),  # Huffman's code
    st.just(b"\x00\x0bbroken"),
)
BLOCKS = st.lists(A_FIELD, max_size=3).map(b"".join)
STREAMS = st.sampled_from([1, 3, 5, 7])


def a_frame(pool: list[bytes]) -> st.SearchStrategy[bytes]:
    blocks = st.sampled_from([HEAD, OK, OK, *pool])
    body = st.sampled_from(
        [b"", message(b"x"), message(b"y" * 50), message(b"z")[:3], b"\0" * 16000]
    )
    return st.one_of(
        st.builds(headers, STREAMS, st.just(HEAD)),
        st.builds(headers, STREAMS, st.just(OK), st.just("END_STREAM")),
        st.builds(headers, STREAMS, blocks),
        st.builds(headers, STREAMS, blocks, st.just("END_STREAM")),
        st.builds(headers, STREAMS, blocks, st.sampled_from(["PADDED", "PRIORITY"])),
        st.builds(data, STREAMS, body),
        st.builds(data, STREAMS, body, st.sampled_from(["END_STREAM", "PADDED"])),
        st.builds(_begun, STREAMS, blocks),
        st.builds(_goes_on, STREAMS, blocks),
        st.builds(_promise, STREAMS, blocks),
        st.builds(_other, STREAMS, st.integers(0, 6)),
    )


def _begun(stream: int, block: bytes) -> bytes:
    return HeadersFrame(stream, block).serialize()


def _goes_on(stream: int, block: bytes) -> bytes:
    return ContinuationFrame(stream, block, flags=["END_HEADERS"]).serialize()


def _promise(stream: int, block: bytes) -> bytes:
    frame = PushPromiseFrame(stream, 2 * stream, block, flags=["END_HEADERS"])
    return frame.serialize()


def _other(stream: int, which: int) -> bytes:
    frames: list[Frame] = [
        RstStreamFrame(stream, 8),
        WindowUpdateFrame(stream, 1000),
        WindowUpdateFrame(0, 1000),
        SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: 0}),
        SettingsFrame(0, flags=["ACK"]),
        PingFrame(0, b"12345678"),
        GoAwayFrame(0, 3),
    ]
    return frames[which].serialize()


LENGTH = b"\x0f\x0d\x01" + b"9"
"""content-length: 9"""
HEADS = [HEAD, HEAD, b"\x88", HEAD + LENGTH, HEAD + OK_FOR_THE_TABLE, b"\x88\xbe", b"\x08\x03103"]
ENDS = [OK, OK, OK + LENGTH, OK_FOR_THE_TABLE, OK_FROM_THE_TABLE]


@st.composite
def stories(draw):
    """What comes from the engine, mostly as it should, in reads; and what is done here meanwhile."""
    heads, ends = (
        draw(st.lists(st.sampled_from(all_), min_size=1, max_size=2)) for all_ in (HEADS, ENDS)
    )
    pool = [*heads, *ends, *draw(st.lists(BLOCKS, max_size=2))]
    opened, begun = 0, dict[int, bool]()
    acts: list[tuple[Any, ...]] = []
    for kind in draw(st.lists(st.integers(0, 29), min_size=15, max_size=40)):
        if kind < 6 or not begun:
            begun[2 * opened + 1] = False
            opened += 1
            acts.append(("open",))
        elif kind < 28:
            stream = draw(st.sampled_from([*begun]))
            if not begun[stream]:
                said = headers(stream, draw(st.sampled_from(heads)))
                begun[stream] = True
            elif kind < 14:
                said = data(stream, draw(st.sampled_from([message(b"x"), message(b"y" * 4)])))
            else:
                said = headers(stream, draw(st.sampled_from(ends)), "END_STREAM")
                del begun[stream]
            acts.append(("take", said))
        else:
            acts.append(draw(AN_ACT) if kind == 28 else ("take", draw(a_frame(pool))))
    return acts


AN_ACT = st.one_of(
    st.tuples(st.just("give_up"), STREAMS),
    st.tuples(st.just("shrink"), st.sampled_from([0, 30, 4096])),
    st.sampled_from(
        [("take", PingFrame(0, b"12345678").serialize() * count) for count in (1, 1001)]
    ),
    st.just(("take", SettingsFrame(0, flags=["ACK"]).serialize())),
)


def joined(story: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same, with what comes in a row as one."""
    acts: list[tuple[Any, ...]] = []
    for act in story:
        if act[0] == "take" and acts and acts[-1][0] == "take":
            acts[-1] = ("take", acts[-1][1] + act[1])
        else:
            acts.append(act)
    return acts


def tell(story: list[tuple[Any, ...]], places: list[int], *, strict: bool) -> Side:
    """Tell it both with what is known and without."""
    short, plain = Side(short=True, strict=strict), Side(short=False, strict=strict)
    for name, *args in joined(story):
        steps = [(piece,) for piece in cut(args[0], places)] if name == "take" else [args]
        for step in steps:
            for side in (short, plain):
                getattr(side, name)(*step)
            assert short.state() == plain.state()
    return short


@given(stories(), PLACES, st.booleans())
def test_calls_books_and_engine_see_the_same_as_when_h2_reads_every_block(story, places, strict):
    tell(story, places, strict=strict)


KNOWN = [("open",), ("take", headers(1, HEAD) + headers(1, OK, "END_STREAM")), ("open",)]
END = headers(3, OK, "END_STREAM")


CASES = {
    "trailers, but no end": ([("take", headers(3, HEAD) + headers(3, OK))], True),
    "another end after the end": ([("take", headers(3, HEAD) + END + END)], False),
    "trailers of a body with a length": ([("take", headers(3, HEAD + LENGTH) + END)], False),
    "a table larger than agreed by now": (
        [
            ("shrink", 0),
            ("take", SettingsFrame(0, flags=["ACK"]).serialize()),
            ("take", headers(3, HEAD)),
        ],
        True,
    ),
    "a head after a flood": (
        [("take", PingFrame(0, b"12345678").serialize() * 1001), ("take", headers(3, HEAD))],
        True,
    ),
}


@pytest.mark.parametrize(("goes_on", "lost"), CASES.values(), ids=CASES.keys())
def test_what_is_known_is_judged_by_where_it_stands(goes_on, lost):
    assert tell([*KNOWN, *goes_on], [], strict=False).protocol.lost is lost


def answered(side: Side, stream: int, head: bytes = HEAD, end: bytes = OK) -> bool:
    """Answer a new call; return whether all of it passed h2."""
    side.open()
    seen: list[Any] = []
    h2 = side.protocol.h2
    with pytest.MonkeyPatch.context() as patch:
        read = h2.receive_data
        patch.setattr(h2, "receive_data", lambda data: [*map(seen.append, [data])] and read(data))
        side.take(
            headers(stream, head)
            + data(stream, message(b"hi"))
            + headers(stream, end, "END_STREAM")
        )
    call = side.calls[stream]
    assert call.buffer.finished()
    assert dict(call.trailers or ())["grpc-status"] == "0"
    return not seen


def test_an_answer_that_begins_and_ends_as_one_before_passes_h2():
    side = Side(short=True)
    assert not answered(side, 1)
    assert answered(side, 3)
    assert answered(side, 5)
    assert side.protocol.h2.streams[5].closed


def test_a_block_that_changes_the_table_is_read_by_h2_each_time_and_what_it_indexed_is_learnt_anew():
    side = Side(short=True)
    assert not answered(side, 1, end=OK_FOR_THE_TABLE)
    assert not answered(side, 3, end=OK_FROM_THE_TABLE)
    assert answered(side, 5, end=OK_FROM_THE_TABLE)
    assert not answered(side, 7, end=OK_FOR_THE_TABLE)
    assert not answered(side, 9, end=OK_FROM_THE_TABLE)


def test_an_index_means_what_stands_in_the_table_now():
    side = Side(short=True)
    failed = OK_FOR_THE_TABLE[:-1] + b"9"
    for number, entry in ((1, OK_FOR_THE_TABLE), (5, failed)):
        side.open()
        side.open()
        side.take(headers(number, HEAD) + headers(number, entry, "END_STREAM"))
        later = number + 2
        side.take(headers(later, HEAD) + headers(later, OK_FROM_THE_TABLE, "END_STREAM"))
        assert side.calls[later].trailers == [("grpc-status", entry[-1:].decode())]


def test_a_frame_within_a_header_block_is_a_fault_though_it_could_pass_h2():
    for amid in (headers(3, HEAD), data(3, message(b"x"))):
        side = Side(short=True)
        answered(side, 1)
        side.open()
        if amid[3] == 0:
            side.take(headers(3, HEAD))
        side.take(_begun(1, b""))
        side.take(amid)
        assert side.protocol.lost


def test_on_a_connection_that_is_over_no_block_is_taken():
    side = Side(short=True)
    answered(side, 1)
    side.open()
    h2 = side.protocol.h2
    h2.close_connection()
    assert h2.take_known(3, HEAD, last=False) is None


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


def test_the_least_is_kept_of_an_engine_that_says_ever_new_things(decoder: Decoder):
    blocks = KnownBlocks(decoder)
    long = b"x" * (MAX_BLOCK_BYTES + 1)
    blocks.learn(long, [], trailers=True)
    assert blocks.find(long, trailers=True) is None
    for number in range(10 * MAX_BLOCKS):
        blocks.learn(b"%d" % number, [], trailers=True)
        assert len(blocks._known) <= MAX_BLOCKS
    assert blocks.find(b"%d" % number, trailers=True) == []


def test_a_block_that_has_changed_the_table_is_not_learnt(decoder: Decoder):
    blocks = KnownBlocks(decoder)
    for number in range(MAX_BLOCKS):
        blocks.learn(b"%d" % number, [], trailers=True)
    decoder.decode(OK_FOR_THE_TABLE)
    blocks.learn(OK_FOR_THE_TABLE, [], trailers=True)
    assert blocks.find(OK_FOR_THE_TABLE, trailers=True) is None


def test_a_head_is_known_as_a_head_only(decoder: Decoder):
    blocks = KnownBlocks(decoder)
    blocks.learn(HEAD, [("a", "b")], trailers=False)
    assert blocks.find(HEAD, trailers=False) == [("a", "b")]
    assert blocks.find(HEAD, trailers=True) is None


@pytest.mark.parametrize(
    "block", [OK_FOR_THE_TABLE, b"\x20", b"\x3e", b"\x20\x3f\xe1\x1f"], ids=bytes.hex
)
def test_whatever_changes_the_table_makes_all_forgotten(decoder: Decoder, block: bytes):
    blocks = KnownBlocks(decoder)
    blocks.learn(OK, [], trailers=True)
    decoder.decode(HEAD)
    assert blocks.find(OK, trailers=True) == []
    decoder.decode(block)
    assert blocks.find(OK, trailers=True) is None
