import math

import pytest
from hypothesis import given

from ark_trio.protocol.value import MAX_LEVELS, NotEncodable, from_value, to_value
from ark_wire import ark_pb2, inference
from tests.protocol.test_float32 import as_float32
from tests.support.strategies import VALUES


def same(left, right):
    """Equality that tells True from 1 and 1 from 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return left == right


SCALARS = {bool: "bool", int: "int64", float: "float", str: "string", bytes: "bytes"}
LISTS = {
    int: ("int64_list", inference.Int64List),
    float: ("float_list", inference.FloatList),
    str: ("string_list", inference.StringList),
    bytes: ("bytes_list", inference.BytesList),
}


def oracle(obj):
    """The same Value spelled with betterproto, by the contract's rules read again."""
    if obj is None:
        return inference.Value()
    if isinstance(obj, list):
        return oracle_of_list(obj)
    if isinstance(obj, dict):
        return oracle_of_dict(obj)
    if isinstance(obj, float):
        obj = as_float32(obj)
    return inference.Value(**{SCALARS[type(obj)]: obj})


def oracle_of_list(obj):
    kinds = {type(item) for item in obj}
    if len(kinds) == 1 and kinds <= LISTS.keys():
        arm, message = LISTS[kinds.pop()]
        return inference.Value(**{arm: message(values=obj)})
    return inference.Value(value_list=inference.ValueList(values=[oracle(item) for item in obj]))


def oracle_of_dict(obj):
    fields = {key: oracle(item) for key, item in obj.items()}
    if obj and all(isinstance(key, int) for key in obj):
        return inference.Value(int64_dict=inference.Int64Dict(fields=fields))
    return inference.Value(struct=inference.Struct(fields=fields))


def has_empty_entry(obj):
    """betterproto 2.0.0b7 drops a map entry whose key and value are both the default."""
    if isinstance(obj, dict):
        empty = any(not key and item is None for key, item in obj.items())
        return empty or any(map(has_empty_entry, obj.values()))
    return isinstance(obj, list) and any(map(has_empty_entry, obj))


@given(VALUES)
def test_a_value_comes_back_as_it_went(obj):
    wire = to_value(obj).SerializeToString()
    assert same(from_value(ark_pb2.Value.FromString(wire)), obj)


@given(VALUES.filter(lambda obj: not has_empty_entry(obj)))
def test_betterproto_writes_and_reads_the_same_message(obj):
    theirs = oracle(obj)
    assert ark_pb2.Value.FromString(bytes(theirs)) == to_value(obj)
    assert inference.Value().parse(to_value(obj).SerializeToString()) == theirs


@pytest.mark.parametrize(
    ("obj", "arm"),
    [
        (None, None),
        (True, "bool_"),
        (1, "int64_"),
        (1.0, "float_"),
        ("a", "string_"),
        (b"a", "bytes_"),
        ([1, 2], "int64_list"),
        ([1.0, 2.0], "float_list"),
        (["a"], "string_list"),
        ([b"a"], "bytes_list"),
        ([1, 2.0], "value_list"),
        ([1, True], "value_list"),
        ([True], "value_list"),
        ([None], "value_list"),
        ([], "value_list"),
        (("a",), "string_list"),
        ({}, "struct_"),
        ({"1": 2}, "struct_"),
        ({1: 2}, "int64_dict"),
    ],
)
def test_each_kind_has_its_arm(obj, arm):
    assert to_value(obj).WhichOneof("kind") == arm


def test_a_float_is_read_at_its_shortest():
    assert repr(from_value(to_value(0.7))) == "0.7"
    assert from_value(to_value({"minimum": 0.1})) == {"minimum": 0.1}


def test_a_list_of_floats_keeps_64_bits():
    assert from_value(to_value([math.pi])) == [math.pi]


def test_minus_infinity_passes():
    assert from_value(to_value(-math.inf)) == -math.inf


@pytest.mark.parametrize(
    ("obj", "place"),
    [
        (2**63, ""),
        (-(2**63) - 1, ""),
        ({"a": [True, {"b": 2**63}]}, ".a[1].b"),
        ([1, 2**63], ""),
        ({2**63: 1}, f".{2**63}"),
        (1e39, ""),
        (-3.4028235677973366e38, ""),
        ("\ud800", ""),
        (["\ud800"], ""),
        ({"\ud800": 1}, ".\ud800"),
        ({1: 2, "a": 3}, ""),
        ({True: 1}, ""),
        ({"a": {1, 2}}, ".a"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_with_its_place(obj, place):
    with pytest.raises(NotEncodable) as caught:
        to_value(obj)
    assert caught.value.place == place


def test_a_key_may_be_in_any_script():
    assert from_value(to_value({"键": 1})) == {"键": 1}


def nested(depth, wrap):
    obj = 1
    for _ in range(depth):
        obj = wrap(obj)
    return obj


@pytest.mark.parametrize(
    ("wrap", "deepest"),
    [
        (lambda obj: {"a": obj}, MAX_LEVELS // 3),
        (lambda obj: {1: obj}, MAX_LEVELS // 3),
        (lambda obj: [obj, None], MAX_LEVELS // 2),
    ],
)
def test_nesting_ends_where_readers_end(wrap, deepest):
    request = ark_pb2.InferenceRequest()
    request.inputs["x"].CopyFrom(to_value(nested(deepest, wrap)))
    assert ark_pb2.InferenceRequest.FromString(request.SerializeToString()) == request
    with pytest.raises(NotEncodable, match="deeply"):
        to_value(nested(deepest + 1, wrap))
    with pytest.raises(NotEncodable, match="deeply"):
        to_value(nested(5000 if wrap(0) != [0, None] else 1000, wrap))
