"""What a client asks of header compression."""

import hpack
import trio
from h2.settings import SettingCodes

from tests.support.fake_engine import open_fake_decoder, saying
from tests.support.h2_front import connect
from tests.support.stack import open_stack


async def test_a_client_that_offers_a_huge_header_table_makes_answers_no_slower(
    autojump_clock: trio.testing.MockClock, monkeypatch
):
    """Each answer's id would be remembered, and each header compared with all that are: by the thousandth, nothing else is done."""
    seen = []
    real = hpack.Encoder.encode

    def encode(self, headers, huffman=True):
        out = real(self, headers, huffman)
        seen.append(len(self.header_table.dynamic_entries))
        return out

    monkeypatch.setattr("hpack.Encoder.encode", encode)
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                front.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
                for _ in range(150):
                    number = front.h2.get_next_available_stream_id()
                    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/livez")]
                    front.h2.send_headers(number, [*fields, (":authority", "x")], end_stream=True)
                    await front.flush()
                    await front.until_ended(number)
                    assert front.status[number] == 200
    assert max(seen) < 100
