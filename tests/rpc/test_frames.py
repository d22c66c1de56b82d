"""What is found in a read, against another reader of the same frames."""

from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.rpc.frames import DATA, HEAD_BYTES, HEADERS, LAST_HEADERS, OTHER, find_frames

MAX = 16_384


def data(stream_id: int, payload: bytes, *flags: str) -> bytes:
    frame = DataFrame(stream_id, data=payload, flags=list(flags))
    return frame.serialize()


def headers(stream_id: int, block: bytes, flags: list[str]) -> bytes:
    return HeadersFrame(stream_id, block, flags=flags).serialize()


HEADERS_FLAGS = st.lists(st.sampled_from(["END_HEADERS", "END_STREAM", "PADDED", "PRIORITY"]))
PLAIN: dict[tuple[object, ...], int] = {
    (DataFrame,): DATA,
    (HeadersFrame, "END_HEADERS"): HEADERS,
    (HeadersFrame, "END_HEADERS", "END_STREAM"): LAST_HEADERS,
}


a_frame = st.one_of(
    st.builds(data, st.integers(1, 5), st.binary(max_size=40)),
    st.builds(data, st.integers(1, 5), st.binary(max_size=40), st.just("END_STREAM")),
    st.builds(data, st.integers(1, 5), st.binary(max_size=40), st.just("PADDED")),
    st.builds(headers, st.integers(1, 5), st.binary(max_size=20), HEADERS_FLAGS),
    st.just(PingFrame(0, b"12345678").serialize()),
    st.just(RstStreamFrame(3, 8).serialize()),
)


@given(st.lists(a_frame, max_size=8).map(b"".join), st.data())
def test_every_byte_is_found_once_and_in_order_however_reads_cut_them(stream: bytes, draws):
    rest, seen, plain = b"", b"", []
    while stream:
        size = draws.draw(st.integers(1, len(stream)))
        read, stream = rest + stream[:size], stream[size:]
        frames, whole = find_frames(read, MAX)
        for kind, stream_id, begin, end in frames:
            seen += read[begin - HEAD_BYTES if kind != OTHER else begin : end]
            if kind != OTHER:
                plain.append((kind, stream_id, read[begin:end]))
        rest = read[whole:]
    assert rest == b""
    assert plain == list(_plain(seen))


def _plain(stream: bytes):
    while stream:
        frame, size = Frame.parse_frame_header(memoryview(stream[:9]))
        kind = PLAIN.get((type(frame), *sorted(frame.flags)))
        if kind is not None:
            yield kind, frame.stream_id, stream[9 : 9 + size]
        stream = stream[9 + size :]


def test_a_frame_over_the_limit_is_handed_over_at_once_for_h2_to_refuse():
    head = (MAX + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1"
    assert find_frames(head + b"x", MAX) == ([(OTHER, 0, 0, 10)], 10)


def test_data_of_no_stream_is_for_h2_to_refuse():
    assert find_frames(data(1, b"x")[:5] + b"\0\0\0\0x", MAX) == ([(OTHER, 0, 0, 10)], 10)
