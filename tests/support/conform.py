"""Whether JSON is what the API's description says, to the letter: no field may be there that it doesn't name."""

import copy

import jsonschema_rs

from ark_trio.protocol.openapi import describe

DESCRIPTION = describe("test")


def _closed(components):
    for schema in components.values():
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
    return components


_STRICT = _closed(copy.deepcopy(DESCRIPTION["components"]["schemas"]))


def expect(name, value):
    """Fail unless `value` is a `name`, with no field beyond."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _STRICT}}
    jsonschema_rs.Draft202012Validator(schema).validate(value)


def admits(name, value):
    """Whether the description admits `value` as a `name`."""
    components = {"schemas": DESCRIPTION["components"]["schemas"]}
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)
