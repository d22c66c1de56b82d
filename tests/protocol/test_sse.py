from hypothesis import given

from ark_trio.protocol.sse import DONE, KEEP_ALIVE, frame
from tests.support.answers import events
from tests.support.strategies import TEXT


@given(TEXT)
def test_every_event_parses_back_whatever_line_breaks_are_in_it(text):
    assert list(events(frame({"a": text + "\r\n\u2028"}) + DONE)) == [
        {"a": text + "\r\n\u2028"},
        "[DONE]",
    ]


def test_keep_alive_is_a_comment():
    assert KEEP_ALIVE == b": keep-alive\n\n"
