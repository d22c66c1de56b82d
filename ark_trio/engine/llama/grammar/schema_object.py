"""Objects and arrays of a JSON schema."""

from collections.abc import Mapping
from typing import Any

from ark_trio.engine.llama.grammar.expression import (
    EMPTY,
    Expression,
    Ref,
    Repeat,
    Text,
    choice,
    maybe,
    row,
)
from ark_trio.engine.llama.grammar.json_text import COLON, COMMA, literal, other_key
from ark_trio.engine.llama.grammar.schema_scalar import count_bounds
from ark_trio.engine.llama.grammar.writer import Writer

Schema = Mapping[str, Any]


def write_object(writer: Writer, schema: Schema, place: str, depth: int) -> Expression:
    """Return the objects that are valid under `schema`: the required members in their order, then the others."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    extra = schema.get("additionalProperties", not properties)
    if not isinstance(properties, dict) or not _are_names(required):
        writer.refuse(place, "has properties or required in another form than JSON Schema's")
    if not properties and not required and extra in (True, {}):
        return Ref("object")
    for name in required:
        if name not in properties:
            if "additionalProperties" in schema and extra is False:
                return _never(writer, place, name)
            properties = {**properties, name: extra if isinstance(extra, dict) else True}
    members = [
        (
            row(literal(name), COLON, writer.write(value, f"{place}/properties/{name}", depth + 1)),
            name in required,
        )
        for name, value in sorted(properties.items(), key=lambda item: _place(item[0], required))
    ]
    more = None
    if extra is not False:
        value = writer.write(extra, f"{place}/additionalProperties", depth + 1)
        more = writer.named(row(other_key(properties), COLON, value))
    return row(Text("{"), Ref("space"), _members(writer, members, more), Text("}"))


def _place(name: str, required: list[str]) -> int:
    return required.index(name) if name in required else len(required)


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _never(writer: Writer, place: str, name: str) -> Expression:
    return writer.never(place, f"requires {name[:80]}, which it does not allow")


def _members(
    writer: Writer, members: list[tuple[Expression, bool]], more: Expression | None
) -> Expression:
    """Return the members, separated by commas, those that aren't required left out or not."""
    after: Expression = EMPTY if more is None else Repeat(row(COMMA, more))
    begin: Expression = EMPTY if more is None else maybe(row(more, after))
    for member, is_required in reversed(members):
        here = writer.named(member)
        then = after if after == EMPTY else writer.named(after)
        begin = row(here, then) if is_required else choice([row(here, then), begin])
        following = row(COMMA, here)
        after = row(following if is_required else maybe(following), then)
    return row(begin, Ref("space"))


def write_array(writer: Writer, schema: Schema, place: str, depth: int) -> Expression:
    """Return the arrays that are valid under `schema`."""
    least, most = count_bounds(writer, schema, place, "minItems", "maxItems")
    if most is not None and least > most:
        return writer.never(place, "has a minItems above its maxItems")
    first = schema.get("prefixItems", [])
    if not isinstance(first, list):
        writer.refuse(f"{place}/prefixItems", "is no list")
    firsts = [
        writer.named(writer.write(item, f"{place}/prefixItems/{number}", depth + 1))
        for number, item in enumerate(first)
    ]
    rest = schema.get("items", True)
    other = None if rest is False else writer.named(writer.write(rest, f"{place}/items", depth + 1))
    return row(
        Text("["), Ref("space"), _items(firsts, other, least, most, writer, place), Text("]")
    )


def _items(
    firsts: list[Ref], other: Ref | None, least: int, most: int | None, writer: Writer, place: str
) -> Expression:
    """Return the items of an array, separated by commas: `firsts` by position, then others."""
    if other is None and least > len(firsts):
        return writer.never(place, "has a minItems above the items that it allows")
    if most is not None:
        firsts = firsts[:most]
    after = _others(other, least - len(firsts), None if most is None else most - len(firsts))
    for number in range(len(firsts) - 1, 0, -1):
        following = row(COMMA, firsts[number], after)
        after = following if number < least else maybe(following)
    if firsts:
        begin = row(firsts[0], after)
    elif other is None or most == 0:
        return EMPTY
    else:
        begin = row(other, _others(other, least - 1, None if most is None else most - 1))
    begin = row(begin, Ref("space"))
    return begin if least else maybe(begin)


def _others(other: Ref | None, least: int, most: int | None) -> Expression:
    if other is None or most == 0:
        return EMPTY
    return Repeat(row(COMMA, other), max(0, least), most)
