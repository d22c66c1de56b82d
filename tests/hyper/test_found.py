"""What fuzzing found, as small as it can be told. `tests/fuzz/found` holds inputs as they were found."""

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from h2.settings import SettingCodes

from tests.lifetimes.test_client import flood
from tests.support.fake_engine import MODEL, open_fake_decoder, saying
from tests.support.h2_front import assert_reset_beside_a_stream, connect
from tests.support.stack import open_stack
from tests.support.wire import CHAT, chat

CHUNKED = b"host: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"HEAD / HTTP/9.9\r\nhost: x\r\n\r\n", 400, id="a-refused-head-has-no-body"),
        pytest.param(b"hEAD /livez HTTP/1.1\r\nhost: x\r\n\r\n", 405, id="methods-have-a-case"),
        pytest.param(
            b"POST /tokenize HTTP/1.1\r\n" + CHUNKED + b"5\r\n12345XX", 400, id="bad-chunk"
        ),
        pytest.param(
            b"POST /tokenize HTTP/1.1\r\n" + CHUNKED + b"5\r\n12345\r\nzz\r\n" * 2,
            400,
            id="bad-size",
        ),
    ],
)
async def test_a_refusal_is_whole_and_crashes_nothing(
    sent: bytes,
    status: int,
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            for piece in (sent[:-3], sent[-3:]):
                await client.send(piece)
            with trio.fail_after(5):
                await client.read_to_end()
            assert client.status == status
            _, _, body = bytes(client.received).partition(b"\r\n\r\n")
            assert (body == b"") == sent.startswith(b"HEAD")
            await client.stream.aclose()
            await stack.assert_as_before(0.1)
            assert "connection_crashed" not in [e["event"] for e in stack.log]


async def test_an_http2_method_that_is_not_ascii_is_its_streams_own_business(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                await assert_reset_beside_a_stream(front, method=b"\xc7ET", path=b"/livez")
            await stack.assert_as_before(0.1)


@pytest.mark.parametrize("host", [b"a" * 64 + b".example", b"a..b"])
async def test_a_host_that_is_none_is_no_failure_of_ours(
    host: bytes, autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(
                b"GET /livez HTTP/1.1\r\nconnection: close\r\nhost: " + host + b"\r\n\r\n"
            )
            await client.read_to_end()
            assert client.status == 400
            await client.stream.aclose()


async def test_a_stream_that_is_reset_while_its_bytes_leave_ends_no_other(
    autojump_clock: trio.testing.MockClock,
):
    """The client reads nothing, so the write waits; then it resets that stream, and reads on."""
    h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
    h2.initiate_connection()
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
    h2.increment_flow_control_window(1 << 30)
    fields = [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "x")]
    async with open_fake_decoder(flood) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect(receive_buffer=4096)
            h2.send_headers(1, [*fields, ("content-type", "application/json")])
            h2.send_data(1, chat("hi", model=MODEL), end_stream=True)
            await client.send(h2.data_to_send())
            await trio.sleep(3)  # the kernel's buffers are full
            h2.reset_stream(1)
            fields[0], fields[2] = (":method", "GET"), (":path", "/livez")
            h2.send_headers(3, fields, end_stream=True)
            await client.send(h2.data_to_send())
            await trio.sleep(1)
            ended = False
            with trio.fail_after(10):
                while not ended:
                    data = await client.stream.receive_some(65536)
                    assert data, "the connection was ended"
                    events = h2.receive_data(bytes(data))
                    ended = any(isinstance(e, StreamEnded) and e.stream_id == 3 for e in events)
            await client.stream.aclose()
            await stack.assert_as_before(0.1)
            assert "connection_crashed" not in [e["event"] for e in stack.log]
