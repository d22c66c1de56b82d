"""A connection to an engine at the moment at which it is lost."""

import os
import socket
from typing import Any

import pytest
import trio
from attrs import define
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from ark_trio.errors import Unreachable
from ark_trio.rpc.connection import ClientProtocol
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.outbox import Outbox
from ark_wire import ark_pb2
from tests.rpc.test_client import count_to, open_pair, text_of
from tests.support.engine_line import Side


@define
class FakeTransport:
    closing: bool = False

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


async def test_what_another_socket_brings_under_the_same_number_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
):
    """A connection may be closed, and its number given to a client's, between becoming readable and being read."""
    engine, ours = socket.socketpair()
    client, accepted = socket.socketpair()
    with engine, ours, client, accepted:
        transport = FakeTransport()
        protocol = ClientProtocol(
            *[None] * 3,
            gather_s=lambda: 0.0,
            on_lost=lambda _protocol: None,
            on_released=lambda: None,
        )
        protocol.transport = transport  # type: ignore[assignment]  # all that the reader needs
        taken: list[bytes] = []
        monkeypatch.setattr(protocol, "data_received", taken.append)
        wait_readable = trio.lowlevel.wait_readable

        async def wait_while_others_run(fd: int) -> None:
            await wait_readable(fd)
            transport.abort()
            os.dup2(accepted.fileno(), fd)

        monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_while_others_run)
        engine.send(b"the engine's")
        client.send(b"a request")
        with trio.fail_after(2):
            await protocol._read(ours.fileno())
        assert taken == []
        accepted.setblocking(False)
        assert accepted.recv(100) == b"a request"


def test_there_is_room_for_as_many_streams_as_the_engine_allows_now():
    side = Side(short=True)
    side.open()
    for most, room in ((1, False), (2, True), (0, False)):
        allowed = SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: most})
        side.take(allowed.serialize())
        assert side.protocol.has_room is room


@pytest.mark.parametrize("gone", [False, True])
def test_a_stream_that_an_engine_begins_is_refused_and_takes_nobodys_room(*, gone: bool):
    side = Side(short=True)
    side.open()
    flags = ["END_HEADERS", *["PADDED"] * gone]  # padded, h2 reads it together with the next
    begun = HeadersFrame(2, b"\x83\x86\x84\x01\x01h", flags=flags).serialize()
    side.take(begun + RstStreamFrame(2, 8).serialize() * gone)
    refusal = RstStreamFrame(2, ErrorCodes.REFUSED_STREAM).serialize()
    assert side.transport.written.endswith(refusal) is not gone
    assert {*side.protocol.processor.streams} == {1}
    assert not side.protocol.lost
    side.give_up(1)
    side.take(GoAwayFrame(0, 1).serialize())
    assert side.transport.closing


def test_a_connection_that_goes_away_stays_for_a_call_of_grpclibs_own():
    side = Side(short=True)
    stream = side.protocol.connection.create_stream(stream_id=1)
    release = side.protocol.processor.register(stream)
    side.take(GoAwayFrame(0, 1).serialize())
    assert not side.transport.closing
    release()
    assert side.transport.closing


async def test_of_calls_that_have_ended_nothing_is_kept():
    """In h2's books they would stay until it counts, which nobody has it do."""

    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await outbox.put(ark_pb2.InferenceResponse())

    async with open_pair(script) as (_, channel):
        for _ in range(3):
            mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
            await channel.stream(ark_pb2.InferenceRequest(), mailbox)
        with trio.move_on_after(0):
            await channel.stream(ark_pb2.InferenceRequest(), Mailbox())
        (protocol,) = channel._grpc.connections
        assert not protocol.h2.streams


async def test_calls_on_a_connection_that_no_ping_answers_are_lost_not_crashed():
    """Between its closing and the calls' hearing of it, they may still want to give back what they have used."""

    async def script(_request: ark_pb2.InferenceRequest, _outbox: Outbox) -> None:
        await trio.sleep_forever()

    async with open_pair(script) as (engine, channel):
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
            with trio.fail_after(5):
                await engine.until(lambda: engine.begun == 1)
                (protocol,) = channel._grpc.connections
                (number,) = protocol.processor.streams
                protocol.connection.close()  # as grpclib does when the time for an answer is over
                window: Any = protocol.config.http2_stream_window_size
                protocol.settle(number, window, window)
                with pytest.raises(Unreachable):
                    await mailbox.take()


async def test_an_answer_that_has_come_whole_is_read_to_its_end_though_the_connection_is_lost():
    """An engine that stops closes as soon as it has said all; who reads it may be slow, as a decoder is that moves a state."""

    async def script(_request: ark_pb2.InferenceRequest, outbox: Outbox) -> None:
        await count_to(100, outbox)

    async with open_pair(script) as (_, channel), trio.open_nursery() as nursery:
        mailbox: Mailbox[ark_pb2.InferenceResponse] = Mailbox(limit=8)
        nursery.start_soon(channel.stream, ark_pb2.InferenceRequest(), mailbox)
        words: list[str] = []
        with trio.fail_after(5):
            words += map(text_of, await mailbox.take())
            (protocol,) = channel._grpc.connections
            (call,) = protocol.processor.streams.values()
            while call.trailers is None:
                await trio.sleep(0.01)
            protocol.transport.abort()
            while batch := await mailbox.take():
                words += map(text_of, batch)
                await trio.sleep(0.01)
    assert words == [str(number) for number in range(100)]
