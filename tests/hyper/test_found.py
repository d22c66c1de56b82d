"""What fuzzing found, as small as it can be told. `tests/fuzz/found` holds inputs as they were found."""

import pytest
import trio

from tests.support.fake_engine import open_fake_decoder, saying
from tests.support.h2_front import connect
from tests.support.stack import open_stack

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
                running = await front.ask()
                bad = front.h2.get_next_available_stream_id()
                fields = [(b":method", b"\xc7ET"), (b":scheme", b"http"), (b":path", b"/livez")]
                front.h2.send_headers(bad, [*fields, (b":authority", b"x")], end_stream=True)
                await front.flush()
                await front.until_ended(bad)
                assert front.ended[bad] == "reset"
                await front.until_ended(running)
                assert front.data[running].endswith(b"data: [DONE]\n\n")
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
