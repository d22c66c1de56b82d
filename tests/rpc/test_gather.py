"""Where tokens are to gather, reads of an engine's connection are set apart: nothing is lost, and nothing waits behind a silence."""

import pytest
import trio
import trio.testing

from ark_trio.errors import Unreachable
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.connection import ClientProtocol
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from tests.rpc.test_client import message, open_pair, read_all, text_of

WINDOW_S = 0.02
GAP_S = 0.004
COUNT = 50


async def paced(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
    for number in range(COUNT):
        await outbox.put(message(str(number)))
        await trio.sleep(GAP_S)


@pytest.fixture
def one_is_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ark_trio.rpc.connection.GATHERING_STREAMS", 1)


def gathering(window_s: float = WINDOW_S) -> ChannelOptions:
    return ChannelOptions(gather_s=lambda: window_s)


async def reads_of(options: ChannelOptions, monkeypatch: pytest.MonkeyPatch) -> tuple[int, float]:
    """Return how many reads a paced answer takes, and how long."""
    reads = 0
    take = ClientProtocol.data_received

    def count(self: ClientProtocol, data: bytes) -> None:
        nonlocal reads
        reads += 1
        take(self, data)

    async with open_pair(paced, options) as (_, channel):
        await channel.control(0)  # connected
        with monkeypatch.context() as patch:
            patch.setattr(ClientProtocol, "data_received", count)
            began = trio.current_time()
            assert await read_all(channel, Mailbox()) == [str(number) for number in range(COUNT)]
            return reads, trio.current_time() - began


@pytest.mark.usefixtures("one_is_many")
async def test_what_comes_meanwhile_comes_in_one_read(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
):
    at_once, plain_s = await reads_of(gathering(0.0), monkeypatch)
    gathered, gathered_s = await reads_of(gathering(), monkeypatch)
    assert at_once >= COUNT
    assert gathered <= at_once * GAP_S / WINDOW_S + 3
    assert gathered_s <= plain_s + 2 * WINDOW_S


async def test_few_streams_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
):
    """A client that waits for a short answer before it asks on would only wait longer."""
    reads, _ = await reads_of(gathering(), monkeypatch)
    assert reads >= COUNT


@pytest.mark.usefixtures("one_is_many")
async def test_large_reads_follow_one_another_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
):
    """An engine that is faster than we are, and has filled the windows, waits for us."""

    async def flood(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        for _ in range(100):
            await outbox.put(message("x" * 60_000))

    async with open_pair(flood, gathering(1.0)) as (_, channel):
        began = trio.current_time()
        assert len(await read_all(channel, Mailbox())) == 100
        # Some reads find only the end of what the sockets held; were all set apart, it would take 92 s.
        assert trio.current_time() - began < 46


@pytest.mark.usefixtures("one_is_many")
async def test_what_comes_behind_a_silence_is_read_at_once(autojump_clock: trio.testing.MockClock):
    spoken: list[float] = []

    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        for number in range(3):
            await trio.sleep(1)
            spoken.append(trio.current_time())
            await outbox.put(message(str(number)))

    heard: list[tuple[str, float]] = []
    async with open_pair(script, gathering()) as (_, channel), trio.open_nursery() as nursery:
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
        while batch := await mailbox.take():
            heard += [(text_of(one), trio.current_time()) for one in batch]
    assert [text for text, _ in heard] == ["0", "1", "2"]
    assert [at for _, at in heard] == pytest.approx(spoken, abs=0.001)


@pytest.mark.usefixtures("one_is_many")
async def test_a_connection_that_is_lost_while_tokens_gather_is_told_soon(
    autojump_clock: trio.testing.MockClock,
):
    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await outbox.put(message("0"))
        await trio.sleep_forever()

    async with open_pair(script, gathering()) as (_, channel), trio.open_nursery() as nursery:
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
        assert len(await mailbox.take()) == 1
        began = trio.current_time()
        (protocol,) = channel._grpc.connections
        protocol.transport.abort()
        with pytest.raises(Unreachable):
            await mailbox.take()
        assert trio.current_time() - began <= WINDOW_S
