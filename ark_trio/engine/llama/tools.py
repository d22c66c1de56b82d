"""Tools that a model may call: what is asked, and the grammar for models whose chat template has no place for them.

It holds such a model to the form of calls and to the tools' own schemas once it begins a call, or from its first word if
it must call one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from ark_trio.engine.llama.constraint import Constraint
from ark_trio.engine.llama.grammar.bounds import contradictions
from ark_trio.engine.llama.grammar.expression import (
    Expression,
    Ref,
    Repeat,
    Rules,
    Text,
    choice,
    row,
    to_gbnf,
)
from ark_trio.engine.llama.grammar.json_text import BASE, literal
from ark_trio.engine.llama.grammar.schema import schema_rules
from ark_trio.engine.llama.grammar.writer import Unsupported
from ark_trio.engine.llama.readers import Json, in_order, is_function, switch
from ark_trio.engine.llama.tool_prompt import CALL_BEGIN, CALL_END
from ark_trio.errors import InvalidRequest

KEYS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

_WORD_TRIGGER = 1
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


@frozen(kw_only=True)
class Tools:
    """The request's tools."""

    given: Sequence[Json]
    """As they stand in the request."""
    choice: str = "auto"
    """none, auto or required."""
    parallel: bool = True

    @property
    def names(self) -> frozenset[str]:
        """The functions' names."""
        return frozenset(tool["function"]["name"] for tool in self.given)

    def for_llama(self) -> Json:
        """Return them as llama.cpp takes them, for a model whose template knows tools."""
        return {
            "tools": list(self.given),
            "tool_choice": self.choice,
            "parallel_tool_calls": self.parallel,
        }

    def grammar(self, beside: Constraint | None) -> Json:
        """Return llama.cpp's parameters that hold the text to calls; `beside` is what it must look like otherwise."""
        rules = {**_call_rules(self), **BASE}
        calls: Expression = Ref("call")
        if self.parallel:
            calls = row(Ref("call"), Repeat(row(Text("\n"), Ref("call"))))
        if self.choice == "required":
            return {"grammar": to_gbnf({"root": calls, **rules})}
        if beside is None:
            # From the first call on: text before it is free.
            trigger = {"type": _WORD_TRIGGER, "value": CALL_BEGIN}
            return {
                "grammar": to_gbnf({"root": calls, **rules}),
                "grammar_lazy": True,
                "grammar_triggers": [trigger],
            }
        if beside.rules is None:
            text = f"{beside.param} can't be combined with tools."
            raise InvalidRequest(text, param=beside.param)
        return {
            "grammar": to_gbnf({"root": choice([calls, Ref("answer")]), **rules, **beside.rules})
        }


def read_tools(inputs: Mapping[str, Any]) -> Tools | None:
    """Return the request's tools, if it has any; a named choice leaves the named one, required.

    Raises:
        InvalidRequest: they are malformed, or the choice can't be made from them.
    """
    given, chosen = inputs.get("tools"), inputs.get("tool_choice")
    parallel = inputs.get("parallel_tool_calls")
    if parallel is not None:
        switch("parallel_tool_calls", parallel)
    if given is not None:
        _check_tools(given)
    named = isinstance(chosen, dict) and is_function(chosen.get("function"))
    if not named and chosen not in (None, "none", "auto", "required"):
        text = "tool_choice must be none, auto, required or a function."
        raise InvalidRequest(text, param="tool_choice")
    if not given:
        if named or chosen == "required":
            raise InvalidRequest("tool_choice needs tools.", param="tool_choice")
        return None
    tools = Tools(given=in_order(given), parallel=parallel is not False)
    if isinstance(chosen, dict):
        return _named(tools, chosen["function"]["name"])
    return evolve(tools, choice=chosen or "auto")


def _check_tools(given: Any) -> None:
    if not isinstance(given, list) or not all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and is_function(tool.get("function"))
        for tool in given
    ):
        raise InvalidRequest("tools must be a list of functions.", param="tools")
    for position, tool in enumerate(given):
        for why in contradictions(tool["function"].get("parameters")):
            raise InvalidRequest(f"tools[{position}]: {why}.", param="tools")


def _named(tools: Tools, name: str) -> Tools:
    found = [tool for tool in tools.given if tool["function"]["name"] == name]
    if not found:
        raise InvalidRequest("tool_choice names none of the tools.", param="tool_choice")
    return evolve(tools, given=found, choice="required", parallel=False)


def _call_rules(tools: Tools) -> Rules:
    rules: dict[str, Expression] = {}
    calls = []
    for number, tool in enumerate(tools.given):
        function, prefix = tool["function"], f"tool{number}"
        try:
            rules |= schema_rules(function.get("parameters") or _NOTHING, prefix=prefix)
        except Unsupported as error:
            # Arguments that no grammar can promise are any object, unless they were to be promised.
            if function.get("strict"):
                text = f"tools[{number}]: {error}."
                raise InvalidRequest(text, param=f"tools[{number}].function.parameters") from error
            rules[prefix] = Ref("object")
        head = f'{CALL_BEGIN}\n{{"name": '
        middle = row(literal(function["name"]), Text(', "arguments": '), Ref(prefix))
        calls.append(row(Text(head), middle, Text(f"}}\n{CALL_END}")))
    return {**rules, "call": choice(calls)}
