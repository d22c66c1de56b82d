import pytest

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.protocol.completion_request import parse_completion
from ark_trio.protocol.json_body import MAX_DEPTH
from ark_trio.protocol.tokenize import parse_detokenize, parse_tokenize

PARSERS = [parse_chat, parse_completion, parse_tokenize, parse_detokenize]
WAYS = {"arrays": (b"[", b"1", b"]"), "objects": (b'{"a":', b"1", b"}")}


def nested(levels: int, way: str) -> bytes:
    """A chat that is `levels` deep, in a field that nobody knows."""
    begin, inner, end = WAYS[way]
    deep = begin * (levels - 1) + inner + end * (levels - 1)
    return b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + deep + b"}"


@pytest.mark.parametrize("way", WAYS)
def test_nesting_is_bounded(way: str):
    assert parse_chat(nested(MAX_DEPTH, way)).model == "m"
    with pytest.raises(InvalidRequest, match="nested more than 64 levels"):
        parse_chat(nested(MAX_DEPTH + 1, way))
    with pytest.raises(InvalidRequest, match="nested more than 10 levels"):
        parse_chat(nested(11, way), 10)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("levels", [500, 1_020, 5_000, 1_000_000])
def test_nothing_is_too_deep_to_be_refused(parse, way: str, levels: int):
    with pytest.raises(InvalidRequest):
        parse(nested(levels, way))


def test_many_values_beside_each_other_are_not_deep():
    assert parse_chat(nested(3, "arrays").replace(b"[[1]]", b"[" + b"[1]," * 9_999 + b"[]]")).n == 1
