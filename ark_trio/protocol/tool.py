"""Tools, the choice among them, and the form that an answer must have: checked here, forwarded as they stand."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

from attrs import field, frozen

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.items import each
from ark_trio.protocol.rules import having, needs
from ark_trio.protocol.structure import NAME, SHAPE, STRUCTURE, parse_name, structure

_CHOICES: Final = ("none", "auto", "required")
_ALLOWED: Final = "allowed_tools"


@frozen(kw_only=True)
class Function:
    """A function that the model may call."""

    name: str = field(metadata={STRUCTURE: parse_name, SHAPE: NAME})
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments."""
    strict: bool | None = None


@frozen(kw_only=True)
class Tool:
    """A tool; functions are the only kind that engines here know."""

    type: Literal["function"]
    function: Function


@frozen(kw_only=True)
class FunctionName:
    """The name of a declared function."""

    name: str


@frozen(kw_only=True)
class NamedChoice:
    """The choice of one tool by name."""

    type: Literal["function"]
    function: FunctionName


@frozen(kw_only=True)
class AllowedTool:
    """One of the tools, by name."""

    type: Literal["function"]
    function: FunctionName


@frozen(kw_only=True)
class AllowedTools:
    """Some of the tools, and how they are chosen from."""

    mode: Literal["auto", "required"]
    tools: tuple[AllowedTool, ...]


@frozen(kw_only=True)
class AllowedChoice:
    """The choice among some of the tools: the others might as well not be there."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


@frozen(kw_only=True)
class JsonSchema:
    """The schema that an answer must follow."""

    name: str = field(metadata={STRUCTURE: parse_name, SHAPE: NAME})
    schema: dict[str, Any] | None = None
    strict: bool | None = None


@frozen(kw_only=True)
class ResponseFormat:
    """The form that the answer must have."""

    RULES: ClassVar = needs(
        "type",
        having(json_schema={"type": "object"}),
        unless={"enum": ["text", "json_object"]},
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse the promise of a schema without one."""
        if self.type == "json_schema" and self.json_schema is None:
            raise Fault("is required when type is json_schema", place="json_schema")


def parse_tools(value: Any) -> list[dict[str, Any]] | None:
    """Check `tools` and return it as it stands."""
    if value is None:
        return None
    checked = each(
        value, _unlike_others(lambda raw: structure(raw, Tool).function, "function.name")
    )
    if not checked:
        raise Fault("expected at least one tool, got an empty list")
    tools: list[dict[str, Any]] = value
    return tools


def parse_functions(value: Any) -> list[dict[str, Any]] | None:
    """Check `functions`, the tools of 2023, and return it as it stands."""
    if value is None:
        return None
    if not each(value, _unlike_others(lambda raw: structure(raw, Function), "name")):
        raise Fault("expected at least one function, got an empty list")
    functions: list[dict[str, Any]] = value
    return functions


def _unlike_others(parse: Callable[[Any], Function], place: str) -> Callable[[Any], Function]:
    """Return a parser of functions that refuses a name that came before: a call could mean either."""
    known: set[str] = set()

    def parse_another(raw: Any) -> Function:
        function = parse(raw)
        if function.name in known:
            raise unexpected("a name of its own", function.name, place=place)
        known.add(function.name)
        return function

    return parse_another


def parse_tool_choice(value: Any) -> Any:
    """Check `tool_choice` and return it as it stands."""
    if value is None or value in _CHOICES:
        return value
    if not isinstance(value, dict):
        raise unexpected("none, auto, required or a named function", value)
    structure(value, AllowedChoice if value.get("type") == _ALLOWED else NamedChoice)
    return value


def check_tool_choice(choice: Any, tools: list[dict[str, Any]] | None) -> None:
    """Raise a Fault if `choice` can't be made from `tools`; both as checked above."""
    if choice is None:
        return
    if tools is None:
        raise Fault("is allowed only when tools are given", place="tool_choice")
    known = {tool["function"]["name"] for tool in tools}
    for name in _names(choice):
        if name not in known:
            raise unexpected("the name of one of the tools", name, place="tool_choice")


def narrowed(choice: Any, tools: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """Return a choice and tools that engines know: the choice among some of the tools is one among fewer."""
    if not isinstance(choice, dict) or choice["type"] != _ALLOWED:
        return choice, tools
    names = _names(choice)
    kept = [tool for tool in tools if tool["function"]["name"] in names]
    return (choice[_ALLOWED]["mode"], kept) if kept else ("none", tools)


def _names(choice: Any) -> list[str]:
    """Return the functions that a choice names."""
    if not isinstance(choice, dict):
        return []
    chosen = choice[_ALLOWED]["tools"] if choice["type"] == _ALLOWED else [choice]
    return [tool["function"]["name"] for tool in chosen]
