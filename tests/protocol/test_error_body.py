import orjson
import pytest

from ark_trio import errors
from ark_trio.protocol.error_body import error_body, error_frames
from tests.support.answers import events


def kinds(base=errors.ArkError):
    yield base
    for sub in base.__subclasses__():
        yield from kinds(sub)


@pytest.mark.parametrize("kind", set(kinds()))
def test_every_error_has_openai_s_shape(kind):
    body = error_body(kind("It broke.", param="n", code="c"))
    assert body == {"error": {"message": "It broke.", "type": kind.kind, "param": "n", "code": "c"}}
    code = error_body(kind("It broke."))["error"]["code"]
    assert code is None or isinstance(code, str)


def test_the_frame_says_what_the_body_says_and_ends_the_stream():
    error = errors.Overloaded("Full.\nReally.")
    assert list(events(error_frames(error))) == [error_body(error), "[DONE]"]
    assert orjson.dumps(error_body(error))
