import json

import pytest
from hypothesis import given

from ark_trio.protocol.call_json import CallJson
from tests.support.cuts import PLACES, cut
from tests.support.strategies import JSON, TEXT


def read(*pieces):
    """Name and arguments of a call that comes in `pieces`, and what is left of the last."""
    call, arguments, rest = CallJson(), "", ""
    for piece in pieces:
        rest += piece
        while rest and not (call.complete or call.broken):
            rest = rest[call.feed(rest) :]
            arguments += call.take_arguments()
    return call, arguments, rest


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "f", "arguments": {"a": [1, {"b": "}"}]}}', '{"a": [1, {"b": "}"}]}'),
        ('{"arguments": {"a": 1}, "name": "f"}', '{"a": 1}'),
        ('{"name": "f", "parameters": {} }', "{}"),
        ('{"id": 7, "name": "f", "arguments": {}, "type": [{"name": "g"}]}', "{}"),
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": null}', "{}"),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f", "arguments": [1, 2]}', "[1, 2]"),
        ('{"name": "f", "arguments": {"a": "\\\\\\"{"}}', '{"a": "\\\\\\"{"}'),
        ('{"name": "f", "arguments": {}, "parameters": {"b": 2}}', "{}"),
        ('{"name": "f", "arguments": {not json}}', "{not json}"),
    ],
)
def test_the_arguments_stand_as_they_were_written(text, arguments):
    call, got, rest = read(text + " tail")
    assert (call.name, got, call.complete, rest) == ("f", arguments, True, " tail")


@pytest.mark.parametrize(
    "text",
    [
        "f(x)",
        "[]",
        '{"name": 5}',
        '{"name": ""}',
        '{"name": f}',
        "{name: 1}",
        '{"a": "b": 1}',
        '{"a": 1]',
        '{"arguments": {}]',
    ],
)
def test_what_is_no_call_is_broken(text):
    call, _, rest = read(text)
    assert call.broken
    assert not call.complete
    assert rest  # the character that broke it is left


def test_arguments_come_as_they_are_written_once_the_name_is_known():
    call = CallJson()
    text = '{"name": "f", "arguments": {"a"'
    size = call.feed(text)
    assert (call.name, text[:size]) == ("f", '{"name": "f",')
    call.feed(text[size:])
    assert (call.name, call.take_arguments()) == ("f", '{"a"')
    call.feed(": 1")
    assert call.take_arguments() == ": 1"
    assert not call.complete


@given(TEXT.filter(bool), JSON.filter(lambda value: value is not None), PLACES)
def test_the_same_however_the_call_is_cut(name, arguments, places):
    spelled = json.dumps({"x": arguments, "name": name, "arguments": arguments})
    call, got, _ = read(*cut(spelled, places))
    assert (call.name, call.complete) == (name, True)
    assert got == (arguments if isinstance(arguments, str) else json.dumps(arguments))
