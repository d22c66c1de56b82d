"""The API's description in OpenAPI 3.1, made from the classes that requests are structured into. Source: OpenAPI 3.1.1."""

from typing import Any, Final

from ark_trio.protocol.answer_schema import Error
from ark_trio.protocol.endpoints import ENDPOINTS, Endpoint
from ark_trio.protocol.schema import Schemas

_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"
_WORDS: Final = {
    200: "Done.",
    400: "The request is wrong; `param` says where.",
    401: "There is no API key, or it is not known here.",
    403: "The API key is not for this.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    409: "The request collides with another one.",
    413: "The body is too large.",
    415: "The body is not sent as JSON.",
    429: "No room now; see Retry-After.",
    500: "The engine or the gateway failed.",
    501: "The engine does not offer this.",
    502: "The engine answered against its contract.",
    503: "No engine is ready; see Retry-After.",
    504: "A time limit passed; `code` says which.",
}


def describe(version: str) -> dict[str, Any]:
    """Return the description of the API of this version."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ark-trio",
            "version": version,
            "description": "OpenAI's API in front of engines that speak ARK. Paths under /v1 work without it too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.keyed:
        # Without a file of keys anybody may ask.
        operation["security"] = [{"key": []}, {}]
    if "{model}" in endpoint.path:
        operation["parameters"] = [
            {
                "name": "model",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
        ]
    if endpoint.body is not None:
        content = {_JSON: {"schema": schemas.of(endpoint.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    content = {_JSON: {"schema": schemas.of(endpoint.answer)}}
    if endpoint.event is not None:
        content[_STREAM] = {"schema": schemas.of(endpoint.event)}
    responses = {200: {"description": _WORDS[200], "content": content}}
    failures = [(status, Error) for status in endpoint.errors]
    for status, kind in sorted([*failures, *endpoint.other], key=lambda each: each[0]):
        body = {_JSON: {"schema": schemas.of(kind)}}
        responses[status] = {"description": _WORDS[status], "content": body}
    return {str(status): response for status, response in responses.items()}
