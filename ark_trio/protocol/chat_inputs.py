"""An ARK request as plain inputs, on the engine's side. Source: docs/engine.md, "Request inputs"."""

from typing import Any, Final

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.value import from_value
from ark_wire import ark_pb2

_HOLDERS: Final = (bytes, list, dict)
"""Types in which bytes may be."""


def decode_inputs(request: ark_pb2.InferenceRequest) -> dict[str, Any]:
    """Return a request's inputs as JSON-like values, for an engine.

    `messages`, if there are any, is a list of objects with `role` and `content`, whichever form they came in.

    Raises:
        InvalidRequest: the messages are malformed, or bytes are not UTF-8.
    """
    inputs = {key: _text(key, from_value(value)) for key, value in request.inputs.items()}
    roles = inputs.pop("messages.role", None)
    contents = inputs.pop("messages.content", None)
    names = inputs.pop("messages.name", None)
    if inputs.get("messages") is not None:
        _check_messages(inputs["messages"])
    elif roles is not None or contents is not None:
        inputs["messages"] = _flat_messages(roles, contents, names)
    return inputs


def _text(place: str, value: Any) -> Any:
    """Return `value` with its bytes, wherever they are in it, as text. Nesting is bounded: protobuf's readers see to it."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise InvalidRequest(f"{place}: is not valid UTF-8.", param=place) from error
        case list():
            return [_text(place, item) if type(item) in _HOLDERS else item for item in value]
        case dict():
            return {key: _text(place, item) for key, item in value.items()}
    return value


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: expected a list of messages.", param="messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            place = f"messages[{position}]"
            raise InvalidRequest(f"{place}: expected an object with a role.", param=place)
        message.setdefault("content", None)


def _flat_messages(roles: Any, contents: Any, names: Any) -> list[dict[str, Any]]:
    lists = (roles, contents) if names is None else (roles, contents, names)
    if not all(_is_text_list(texts, len(roles or ())) for texts in lists):
        raise InvalidRequest(
            "messages.role and messages.content: expected lists of texts, one entry a message.",
            param="messages",
        )
    messages = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    for message, name in zip(messages, names or (), strict=False):
        if name:
            message["name"] = name
    return messages


def _is_text_list(texts: Any, length: int) -> bool:
    return (
        isinstance(texts, list)
        and 0 < length == len(texts)
        and all(isinstance(text, str) for text in texts)
    )
