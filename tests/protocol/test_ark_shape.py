"""What is known by its shape against what is parsed: the same steps, whatever an engine sends."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.errors import BadBackend
from ark_trio.protocol import ark_reader
from ark_trio.protocol.ark_message import TextMessage
from ark_trio.protocol.ark_reader import MessageReader
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2

Response = ark_pb2.InferenceResponse


def spelled(step: Step, req_id: str = "r" * 8) -> bytes:
    (message,) = encode_step(step, req_id=req_id, model="m")
    return message.SerializeToString(deterministic=True)


def token(content: str = "hello", index: int = 0, usage: Usage | None = None, **more: Any) -> bytes:
    return spelled(Step(choices=(ChoiceDelta(index=index, content=content),), usage=usage), **more)


def outputs(**values: Any) -> bytes:
    made = Response()
    for key, value in values.items():
        fill_value(made.outputs[key.replace("__", ".")], value)
    return made.SerializeToString(deterministic=True)


def nested(content: Any = "hello", index: Any = 0, **message: Any) -> dict[str, Any]:
    return {"index": index, "message": {"content": content, **message}}


def within(unknown: bytes) -> bytes:
    """A token whose choice has a field of a newer contract beside its entries."""
    message = ark_pb2.InferenceResponse.FromString(token())
    message.outputs["choice"].struct_.MergeFromString(unknown)
    return message.SerializeToString()


def is_known_after(first: bytes, then: bytes) -> bool:
    reader = MessageReader()
    assert not isinstance(reader.read(first), TextMessage)
    return isinstance(reader.read(then), TextMessage)


def told(decoder: ResponseDecoder, read: Any, raw: bytes) -> Any:
    try:
        return decoder.feed(read(raw))
    except (DecodeError, BadBackend) as error:
        return type(error)


def expect_alike(stream: list[bytes], reader: MessageReader | None = None) -> None:
    known, parsed = ResponseDecoder(), ResponseDecoder()
    read = (reader or MessageReader()).read
    for raw in stream:
        assert told(known, read, raw) == told(parsed, Response.FromString, raw)
    assert known.end() == parsed.end()


def counted(prompt: int, completion: int, reasoning: int, cached: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        cached_tokens=cached,
    )


USAGE = counted(300, 5, 2, 256)


@pytest.mark.parametrize(
    "then",
    [
        token("world", usage=USAGE),
        token("wörl", usage=USAGE),
        token(index=3, usage=USAGE),
        token(req_id="s" * 8, usage=USAGE),
        token(usage=counted(300, 6, 3, 255)),
        token(usage=counted(16000, 127, 0, 15900)),
    ],
    ids=["text", "other bytes", "choice", "request", "counts", "largest counts"],
)
def test_what_differs_in_text_totals_and_ids_only_is_known(then):
    assert is_known_after(token(usage=USAGE), then)
    expect_alike([token(usage=USAGE), then])


def test_reasoning_that_the_engine_tells_apart_is_known():
    one, other = (spelled(Step(choices=(ChoiceDelta(reasoning=word),))) for word in ("abc", "xyz"))
    assert is_known_after(one, other)
    expect_alike([one, other])


def end(
    content: str = "",
    reason: str = "stop",
    usage: Usage | None = USAGE,
    req_id: str = "r",
    **more: Any,
) -> bytes:
    delta = ChoiceDelta(content=content, finish_reason=reason, **more)
    return spelled(Step(choices=(delta,), usage=usage), req_id)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (end(), end(usage=counted(301, 99, 0, 257))),
        (end("abc"), end("xyz")),
        (end(reasoning="abc"), end(reasoning="xyz")),
        (end(), end(index=3)),
    ],
    ids=["no text", "text", "reasoning", "choice"],
)
def test_an_end_is_known_whatever_its_text_and_totals(first, then):
    assert is_known_after(first, then)
    expect_alike([first, then, token(usage=USAGE)])


def test_an_end_for_another_reason_is_another_shape():
    other = end(reason="length").replace(b"length", b"lenGth")
    assert not is_known_after(end(reason="length"), other)
    expect_alike([end(reason="length"), other])


def test_an_end_finishes_a_character_that_was_begun_as_the_parser_has_it():
    half = outputs(choice__message__content="é".encode()[:1])
    expect_alike([end(), end("xyz"), half, end(), half, end("abc"), half])


def test_an_end_takes_no_token_s_place():
    text, last = token("x" * 30, usage=USAGE), end(req_id="r" * 11)
    assert len(text) == len(last)
    reader = MessageReader()
    for raw in (text, last):
        assert not isinstance(reader.read(raw), TextMessage)
    for raw in (text, last):
        assert isinstance(reader.read(raw), TextMessage)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(token(""), id="no text"),
        pytest.param(
            spelled(Step(choices=(ChoiceDelta(content="x", reasoning="y"),))), id="both texts"
        ),
        pytest.param(
            spelled(Step(choices=(ChoiceDelta(tool_calls=(ToolCallDelta(index=0, name="f"),)),))),
            id="a call",
        ),
        pytest.param(spelled(Step(usage=USAGE)), id="totals alone"),
        pytest.param(outputs(choice=nested(b"half")), id="text in bytes"),
        pytest.param(outputs(choice=nested(index=200)), id="many choices"),
        pytest.param(outputs(choice={"message": {"content": "x"}}), id="no index"),
        pytest.param(outputs(choice="?"), id="malformed choice"),
        pytest.param(outputs(choice=nested(), usage="?"), id="malformed totals"),
        pytest.param(outputs(choice=nested(), usage=None), id="null"),
        pytest.param(outputs(choice=nested(), usage__prompt_tokens=-1), id="negative count"),
        pytest.param(outputs(choice=nested(), usage={"rate": 0.5}), id="a float"),
        pytest.param(outputs(choice__message__content=b"x"), id="flat only"),
        pytest.param(token(req_id="é"), id="odd id"),
        pytest.param(token() + b"\x20\x01", id="unknown field"),
        pytest.param(token() + b"\xa0\x06\x01", id="unknown field far away"),
        pytest.param(token() + b"\x1a\x00", id="empty entry"),
        pytest.param(within(b"\x18\x01"), id="unknown field within"),
        pytest.param(within(b"\x12\x07\x0a\x05index"), id="unknown field within, as an entry"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_everything_else_is_parsed(message):
    assert not is_known_after(message, message)
    expect_alike([message, message])


def test_text_that_is_no_unicode_is_the_parsers_to_refuse():
    bad = token("abc").replace(b"abc", b"a\xffc")
    assert not is_known_after(token("abc"), token("abcd"))
    reader = MessageReader()
    reader.read(token("abc"))
    with pytest.raises(DecodeError):
        reader.read(bad)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"\x05", b"\x85", id="goes on into what follows"),
        pytest.param(b"\x85\x00", b"\x05\x00", id="ends early"),
        pytest.param(b"\x85" + b"\x80" * 8 + b"\x00", b"\xff" * 9 + b"\x01", id="negative"),
    ],
)
def test_a_count_ends_where_it_ended_before(first, then):
    def message(varint: bytes) -> bytes:
        value = b"\x28" + varint
        entry = b"\x0a\x13usage.prompt_tokens\x12" + bytes((len(value),)) + value
        return outputs(choice=nested()) + b"\x1a" + bytes((len(entry),)) + entry

    assert message(b"\x05") == outputs(choice=nested(), usage__prompt_tokens=5)
    assert is_known_after(message(first), message(first)) == (len(first) < 10)
    expect_alike([message(first), message(then)])


def test_nested_totals_count_before_flat_ones():
    def message(nested_count: int, flat_count: int) -> bytes:
        usage = {"prompt_tokens": nested_count}
        return outputs(choice=nested(), usage=usage, usage__prompt_tokens=flat_count)

    stream = [message(3, 3), message(4, 5)]
    assert is_known_after(*stream)
    expect_alike(stream)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"usage__completion_tokens": n},
        lambda n: {"cache__prompt_cache_hit_tokens": n},
        lambda n: {"cache": {"prompt_cache_hit_tokens": n, "why": "x"}},
        lambda n: {"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": n}}},
        lambda n: {"usage": {"completion_tokens_details": {"reasoning_tokens": n}}},
        lambda n: {
            "usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": n}},
            "cache": {"prompt_cache_hit_tokens": 7},
        },
        lambda n: {"cache": {"other": n}, "cache__prompt_cache_hit_tokens": 8},
    ],
)
def test_totals_are_read_wherever_the_decoder_reads_them(make):
    told_before = outputs(choice=nested(), usage__prompt_tokens=1)
    stream = [outputs(choice=nested(), **make(n)) for n in (1, 2)]
    assert is_known_after(*stream)
    expect_alike([*stream, told_before, *stream])


def test_shapes_are_looked_for_seldom_where_none_is_found(monkeypatch):
    looked = 0

    def look(*_: object) -> None:
        nonlocal looked
        looked += 1

    monkeypatch.setattr(ark_reader, "shape_of", look)
    reader = MessageReader()
    for _ in range(64 + 320):
        reader.read(token())
    assert looked == 64 + 10


def test_shapes_are_bounded_in_size_and_number(monkeypatch):
    monkeypatch.setattr(ark_reader, "_MOST_SHAPES", 2)
    reader = MessageReader()
    for size in (1, 2, 3):
        reader.read(token("x" * size))
    assert isinstance(reader.read(token("abc")), TextMessage)
    assert not isinstance(reader.read(token("a")), TextMessage)
    assert not is_known_after(token("x" * 2048), token("y" * 2048))


def test_an_engine_that_comes_back_with_other_keys_is_learned_anew():
    reader = MessageReader()
    for _ in range(64):
        reader.read(token("abc"))  # all known but one
        reader.read(b"")
    flipped = outputs(choice=nested(), other=True)
    for _ in range(32):
        reader.read(flipped)
    assert isinstance(reader.read(flipped), TextMessage)


usages = st.none() | st.builds(
    Usage,
    prompt_tokens=st.integers(0, 2**40),
    completion_tokens=st.integers(0, 300),
    reasoning_tokens=st.none() | st.integers(0, 3),
    cached_tokens=st.none() | st.integers(0, 3),
)
texts = st.text(max_size=4)
deltas = st.builds(
    ChoiceDelta,
    index=st.integers(0, 2),
    content=texts,
    reasoning=st.sampled_from(["", "", "", "x"]),
    finish_reason=st.sampled_from([None, None, "stop", "length"]),
)
steps = st.builds(Step, choices=st.tuples(deltas), usage=usages)


@st.composite
def reordered(draw: Any) -> bytes:
    """A message whose outputs stand in some order, as engines write their maps."""
    (message,) = encode_step(draw(steps), req_id=draw(st.text(max_size=2)), model="m")
    parts = [Response(req_id=message.req_id).SerializeToString()]
    for key, value in message.outputs.items():
        one = Response()
        one.outputs[key].CopyFrom(value)
        parts.append(one.SerializeToString(deterministic=True))
    return b"".join(draw(st.permutations(parts)))


halves = st.binary(max_size=2).map(lambda some: outputs(choice__message__content=some))


@given(st.lists(st.builds(spelled, steps) | reordered() | halves, max_size=30))
def test_any_stream_is_read_as_the_parser_reads_it(stream):
    expect_alike([*stream, *stream])


@given(
    st.builds(token, texts.filter(bool), usage=usages) | reordered(),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), max_size=3),
)
def test_no_byte_that_matters_is_overlooked(raw, flips):
    changed = bytearray(raw)
    for at, bits in flips:
        changed[at % len(changed)] ^= bits
    expect_alike([raw, bytes(changed)])
