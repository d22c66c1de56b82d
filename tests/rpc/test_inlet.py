"""From the bytes of a stream to the messages in a sink, by itself: cuts, a full sink, windows, faults."""

import pytest
from grpclib.exceptions import ProtocolError
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import ArkError, BadBackend
from ark_trio.rpc.inlet import Inlet

WINDOW = 400


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    frames: list[bytes] = []
    while stream:
        size = sizes[len(frames) % len(sizes)]
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


class Taker:
    """A sink that is full after every so many messages."""

    def __init__(self, full_after: int) -> None:
        self.full_after = full_after
        self.got: list[bytes] = []
        self.fed_when_full = False
        self._full = False

    def feed(self, message: bytes, size: int = 0) -> bool:
        assert size == len(message)
        self.fed_when_full |= self._full
        self.got.append(message)
        self._full = len(self.got) % self.full_after == 0
        return not self._full

    def flush(self) -> None:
        pass

    def make_room(self) -> None:
        self._full = False

    async def room(self) -> None:
        raise NotImplementedError

    def end(self) -> None: ...
    def fail(self, error: ArkError) -> None: ...


class Books:
    """The stream's window as h2 would keep it."""

    def __init__(self) -> None:
        self.arrived = self.used = 0

    def settle(self, arrived: int, used: int) -> None:
        self.arrived += arrived
        self.used += used


def pour(frames: list[bytes], sink: Taker, books: Books, limit: int = 1000) -> None:
    """Own an inlet as a call does, a frame a turn, never more than its window allows."""
    inlet: Inlet[bytes] = Inlet(
        sink, bytes, books.settle, lambda: None, limit_bytes=limit, settle_at_bytes=WINDOW // 4
    )
    inlet.resume()
    sent = 0
    for frame in frames:
        for _ in range(10_000):
            inlet.finished()
            if inlet.full:
                sink.make_room()
                inlet.resume()
            if sent + len(frame) - books.used <= WINDOW:
                break
        else:
            pytest.fail("the window never opened")
        inlet.take(frame)
        inlet.deliver()
        sent += len(frame)
    inlet.eof()
    while not inlet.finished():
        assert inlet.full
        sink.make_room()
        inlet.resume()


@given(
    st.lists(st.binary(max_size=900), max_size=20),
    st.lists(st.integers(1, WINDOW // 2), min_size=1, max_size=20),
    st.integers(1, 5),
)
def test_messages_arrive_whole_and_in_order_however_frames_cut_them(messages, cuts, full_after):
    stream = b"".join(map(framed, messages))
    sink, books = Taker(full_after), Books()
    pour(cut(stream, cuts), sink, books)
    assert sink.got == messages
    assert not sink.fed_when_full
    assert books.arrived <= len(stream)
    assert len(stream) - books.used < WINDOW // 4


@pytest.mark.parametrize("bad", [framed(b"x" * 1001), b"\1" + framed(b"x")[1:]])
def test_a_message_over_the_limit_or_compressed_is_refused_after_those_before_it(bad: bytes):
    sink = Taker(100)
    with pytest.raises(BadBackend, match="size limit"):
        pour(cut(framed(b"first") + bad + framed(b"later"), [WINDOW]), sink, Books())
    assert sink.got == [b"first"]


def test_a_message_that_breaks_off_is_a_fault():
    with pytest.raises(ProtocolError):
        pour([framed(b"whole"), framed(b"half")[:-1]], Taker(100), Books())


def test_what_passes_h2_does_not_overtake_what_was_cut_out_of_the_same_read():
    sink, books = Taker(100), Books()
    inlet: Inlet[bytes] = Inlet(
        sink, bytes, books.settle, lambda: None, limit_bytes=1000, settle_at_bytes=1
    )
    inlet.resume()
    stream = framed(b"one") + framed(b"two")
    inlet.take(stream[:7])
    inlet.take(stream[7:10])
    inlet.add(stream[10:], 100)  # padded
    inlet.deliver()
    assert sink.got == [b"one", b"two"]
    assert (books.arrived, books.used) == (10, 10 + 100)
