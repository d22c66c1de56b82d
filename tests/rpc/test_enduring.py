"""A request by our frames, beside the same by h2's own."""

from typing import Any

import hypothesis.strategies as st
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError, StreamClosedError
from hyperframe.frame import RstStreamFrame, WindowUpdateFrame
from hypothesis import given

from ark_trio.rpc.enduring import EnduringConnection
from ark_trio.rpc.head import spell_head

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "h")]
BODIES = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=4)


def pair() -> tuple[EnduringConnection, H2Connection]:
    client = EnduringConnection(H2Configuration(client_side=True))
    server = H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    return client, server


@given(BODIES)
def test_an_engine_and_the_books_see_the_same_request(pieces):
    ours, engine_of_ours = pair()
    plain, engine_of_plain = pair()
    ours.open_stream(1, spell_head("http", "h", "/x", []))
    plain.send_headers(1, FIELDS)
    for at, piece in enumerate(pieces, 1):
        ours.send_piece(1, piece, last=at == len(pieces))
        plain.send_data(1, piece, end_stream=at == len(pieces))
    told: list[Any] = [engine_of_ours.receive_data(ours.data_to_send())]
    told.append(engine_of_plain.receive_data(plain.data_to_send()))
    for events in told:
        assert isinstance(events[0], RequestReceived)
        assert isinstance(events[-1], StreamEnded)
    assert [b"".join(e.data for e in events if isinstance(e, DataReceived)) for events in told] == [
        b"".join(pieces)
    ] * 2
    assert told[0][0].headers[:4] == told[1][0].headers
    assert ours.local_flow_control_window(1) == plain.local_flow_control_window(1)
    assert ours.outbound_flow_control_window == plain.outbound_flow_control_window
    assert ours.streams[1].state_machine.state is plain.streams[1].state_machine.state


def test_a_stream_that_has_ended_is_forgotten_and_stays_closed():
    client, server = pair()
    client.open_stream(1, spell_head("http", "h", "/x", []))
    client.send_piece(1, b"a", last=True)
    client.forget(1)
    assert 1 in client.streams  # it goes on
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200")], end_stream=True)
    client.receive_data(server.data_to_send())
    client.forget(1)
    assert not client.streams
    with pytest.raises(StreamClosedError):
        client.send_piece(1, b"a", last=True)
    for late in (WindowUpdateFrame(1, window_increment=1), RstStreamFrame(1, error_code=8)):
        assert client.receive_data(late.serialize()) == []


def test_what_comes_late_for_a_stream_that_we_reset_harms_nobody():
    client, server = pair()
    client.open_stream(1, spell_head("http", "h", "/x", []))
    server.receive_data(client.data_to_send())
    client.reset_stream(1, ErrorCodes.CANCEL)
    client.forget(1)
    server.send_headers(1, [(":status", "200")])
    server.send_data(1, b"late")
    client.receive_data(server.data_to_send())
    client.open_stream(3, spell_head("http", "h", "/x", []))
    assert 3 in client.streams


def test_nothing_is_sent_on_a_connection_that_is_over_or_a_stream_that_is_sent():
    client, _ = pair()
    client.open_stream(1, spell_head("http", "h", "/x", []))
    client.send_piece(1, b"a", last=True)
    with pytest.raises(ProtocolError):
        client.send_piece(1, b"b", last=True)
    client.close_connection()
    with pytest.raises(ProtocolError):
        client.open_stream(3, spell_head("http", "h", "/x", []))
