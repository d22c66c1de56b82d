"""Tools for models whose chat template knows none: what they are told, and what holds them to it."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ark_trio.engine.llama.constraint import read_constraint
from ark_trio.engine.llama.grammar.expression import Ref, Repeat, Text, row
from ark_trio.engine.llama.grammar.json_text import BASE
from ark_trio.engine.llama.tool_prompt import with_tools
from ark_trio.engine.llama.tools import Tools, _call_rules, read_tools
from ark_trio.errors import InvalidRequest
from ark_trio.protocol.tool_text import ToolText
from tests.support.grammar import draw_text

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city"],
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
NOW = {"type": "function", "function": {"name": 'no"w', "description": "The time"}}


def tools(**inputs: Any) -> Tools:
    found = read_tools({"tools": [WEATHER, NOW], **inputs})
    assert found is not None
    return found


@settings(max_examples=50)
@given(st.data(), st.integers(1, 7))
def test_what_the_grammar_allows_is_read_as_valid_calls(data: st.DataObject, cut: int):
    rules = {**_call_rules(tools()), **BASE}
    more = Repeat(row(Text("\n"), Ref("call")), 0, 2)
    text = draw_text(data, {"root": row(Ref("call"), more), **rules})
    reader = ToolText(["hermes"], ["weather", 'no"w'])
    said = [reader.feed(text[at : at + cut]) for at in range(0, len(text), cut)] + [reader.end()]
    assert "".join(piece.content for piece in said) == ""
    calls = [call for piece in said for call in piece.calls]
    for index in range(calls[-1].index + 1):
        [name] = [call.name for call in calls if call.index == index and call.name]
        arguments = orjson.loads("".join(c.arguments for c in calls if c.index == index))
        if name == "weather":
            Draft202012Validator(PARAMETERS).validate(arguments)
        else:
            assert (name, arguments) == ('no"w', {})


def test_a_choice_is_auto_unless_said_otherwise():
    assert (tools().choice, tools().parallel) == ("auto", True)
    assert tools(tool_choice="none").choice == "none"
    assert not tools(parallel_tool_calls=False).parallel
    assert read_tools({}) is None
    assert read_tools({"tools": [], "tool_choice": "auto"}) is None


def test_a_named_tool_is_the_only_one_and_called_once():
    named = tools(tool_choice={"type": "function", "function": {"name": "weather"}})
    assert named.names == {"weather"}
    assert (named.choice, named.parallel) == ("required", False)
    assert "grammar_lazy" not in named.grammar(None)
    assert "no" not in named.grammar(None)["grammar"].split("tool0")[0]


def test_free_text_may_come_before_a_call_unless_one_is_required():
    assert tools().grammar(None)["grammar_lazy"]
    assert "grammar_lazy" not in tools(tool_choice="required").grammar(None)


def test_beside_a_constraint_it_is_either():
    constraint = read_constraint({"guided_choice": ["yes"]})
    held = tools().grammar(constraint)
    assert "grammar_lazy" not in held
    assert "answer" in held["grammar"].splitlines()[0]
    with pytest.raises(InvalidRequest) as raised:
        tools().grammar(read_constraint({"guided_grammar": 'root ::= "a"'}))
    assert raised.value.param == "guided_grammar"


def test_arguments_that_no_grammar_can_promise_are_any_object_unless_strict():
    odd = {"type": "object", "properties": {"a": {"not": {}}}}
    tool: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": odd}}
    loose = read_tools({"tools": [tool]})
    assert loose is not None
    assert "tool0 ::= object" in loose.grammar(None)["grammar"]
    strict = read_tools({"tools": [{**tool, "function": {**tool["function"], "strict": True}}]})
    assert strict is not None
    with pytest.raises(InvalidRequest) as raised:
        strict.grammar(None)
    assert raised.value.param == "tools[0].function.parameters"


def test_the_same_tools_are_told_in_the_same_words_however_they_arrive():
    function = {"parameters": PARAMETERS, "name": "weather"}
    turned = {"function": function, "type": "function"}
    user = [{"role": "user", "content": "hi"}]
    one, other = (read_tools({"tools": [tool]}) for tool in (WEATHER, turned))
    assert one is not None
    assert other is not None
    told = [with_tools(user, found.given, system_role=True) for found in (one, other)]
    assert told[0] == told[1]
    assert '{"type":"function","function":{"name":"weather","parameters":' in told[0][0]["content"]


USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("messages", "system_role", "roles"),
    [
        ([USER], True, ["system", "user"]),
        ([SYSTEM, USER], True, ["system", "user"]),
        ([USER], False, ["user"]),
    ],
)
def test_the_model_is_told_where_its_template_listens(messages: Any, system_role: bool, roles: Any):
    told = with_tools(messages, [WEATHER], system_role=system_role)
    assert [message["role"] for message in told] == roles
    assert "<tools>" in told[0]["content"]
    assert all(message["content"] in "".join(t["content"] for t in told) for message in messages)


def test_calls_and_results_become_text():
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city":"Rom"}'}}
    told = with_tools(
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "1", "content": "warm"},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "dry"}]},
            {"role": "assistant", "content": "Warm."},
        ],
        (),
        system_role=True,
    )
    assert [message["role"] for message in told] == ["user", "assistant", "user", "assistant"]
    assert told[1]["content"].count('{"name": "weather", "arguments": {"city":"Rom"}}') == 2
    assert told[2]["content"] == (
        "<tool_response>\nwarm\n</tool_response>\n<tool_response>\ndry\n</tool_response>"
    )
    assert told[3] == {"role": "assistant", "content": "Warm."}
