"""JSON into classes, held against cattrs' own way with the same hooks: the same values, the same faults in the same order."""

from typing import Any, Literal

import attrs
import pytest
from attrs import field, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override
from hypothesis import example, given
from hypothesis import strategies as st

from ark_trio.protocol import structure as structure_module
from ark_trio.protocol.chat_body import ChatBody
from ark_trio.protocol.completion_body import CompletionBody
from ark_trio.protocol.fault import Fault, invalid_request
from ark_trio.protocol.items import expect_object
from ark_trio.protocol.message import Message
from ark_trio.protocol.structure import BOUNDS, STRUCTURE, Bounds, structure
from ark_trio.protocol.tool import Tool


@frozen(kw_only=True)
class Inner:
    name: str
    size: int | None = None


@frozen(kw_only=True)
class Outer:
    first: Inner
    word: Literal["a", "b"] | None = None
    last: tuple[Inner, ...] = ()
    share: float | None = field(default=None, metadata={BOUNDS: Bounds(minimum=0, maximum=1)})
    own: Any = field(default=None, metadata={STRUCTURE: expect_object})

    def __attrs_post_init__(self) -> None:
        if self.word == "b" and self.share is None:
            raise Fault("is required when word is b", place="share")


def by_cattrs(value: Any, kind: Any) -> Any:
    """As `structure`, but the class itself is made by what cattrs generates for it."""
    hooks = {one.name: structure_module._attribute_hook(one) for one in attrs.fields(kind)}
    overrides: Any = {name: override(struct_hook=_for_cattrs(hook)) for name, hook in hooks.items()}
    converter = Converter(detailed_validation=True)
    fill = make_dict_structure_fn(kind, converter, **overrides)
    try:
        return fill(expect_object(value), kind)
    except ClassValidationError as error:
        raise error.derive([*map(_as_ours, error.exceptions)]) from error


def _for_cattrs(hook: Any) -> Any:
    return lambda raw, _: hook(raw)


def _as_ours(error: Any) -> Any:
    """cattrs tells a missing key by an error of its own; we by a fault, at the same place."""
    if not isinstance(error, KeyError):
        return error
    fault = Fault("is required")
    fault.__notes__ = error.__notes__
    return fault


def told(take: Any, value: Any, kind: Any) -> Any:
    try:
        return take(value, kind)
    except Exception as error:  # noqa: BLE001 (whatever it is, both are to say the same)
        refusal = invalid_request(error)
        return refusal.message, refusal.param


odd: Any = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, 2**70, "", "a", "b", [], {}, [{}], {"name": "n"}]
)
inner = st.fixed_dictionaries({}, optional={"size": odd, "name": odd, "other": odd})
KEYS = ("own", "share", "last", "word", "first", "other")
outer = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(KEYS, odd),
        "first": inner | odd,
        "last": st.lists(inner, max_size=3) | odd,
        "word": st.sampled_from(["a", "b", "c", None]),
        "share": st.sampled_from([0, 0.5, 1, 2, "x", None]),
    },
).flatmap(lambda found: st.permutations(list(found.items())).map(dict))


@given(outer | odd)
@example({"first": {"name": "n"}, "word": "b"})
@example({"own": 1, "share": 3, "last": [{}], "word": "c"})
def test_values_and_faults_are_those_of_cattrs(value: Any):
    assert told(structure, value, Outer) == told(by_cattrs, value, Outer)


@pytest.mark.parametrize("kind", [ChatBody, CompletionBody, Message, Tool])
@given(st.data())
def test_the_bodies_classes_are_made_as_by_cattrs(kind: Any, data: st.DataObject):
    names = st.sampled_from([one.name for one in attrs.fields(kind)])
    value = {
        **data.draw(st.dictionaries(names, odd, max_size=6)),
        **data.draw(st.sampled_from([{}, {"model": "m", "role": "user", "content": "hello"}])),
    }
    assert told(structure, value, kind) == told(by_cattrs, value, kind)


def test_faults_come_in_the_order_of_the_fields_not_of_the_keys():
    message, param = told(structure, {"own": 1, "share": 3, "last": {}}, Outer)
    assert [each.split(":")[0] for each in message.split("; ")] == [
        "first",
        "last",
        "share",
        "own",
    ]
    assert param == "first"


def test_a_key_error_in_a_parser_is_a_bug_and_no_missing_field():
    def broken(_: Any) -> None:
        raise KeyError("inside")

    @frozen(kw_only=True)
    class Broken:
        own: Any = field(default=None, metadata={STRUCTURE: broken})

    with pytest.raises(KeyError):
        told(structure, {"own": 1}, Broken)


@pytest.mark.parametrize(("value", "fits"), [(None, True), (0, False), ("", False)])
def test_null_alone_is_null(value: Any, fits: bool):
    @frozen(kw_only=True)
    class Nothing:
        own: None = None

    found = told(structure, {"own": value}, Nothing)
    assert found == (Nothing() if fits else (found[0], "own"))
