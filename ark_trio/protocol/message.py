"""The messages of a conversation, as clients send them and as engines read them."""

from typing import Annotated, Any, ClassVar, Final, Literal

from attrs import define, field, frozen

from ark_trio.protocol.fault import Fault, unexpected
from ark_trio.protocol.items import each, expect_object
from ark_trio.protocol.rules import Schema, having
from ark_trio.protocol.structure import KIND, NOT_EMPTY, SHAPE, STRUCTURE, structure

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

_SET: Final[Schema] = {"type": ["string", "array"]}
_TEXT: Final[Schema] = {"type": "string"}
_WORDS: Final[Schema] = {"type": "string", "minLength": 1}
_BY_ROLE: Final[tuple[Schema, ...]] = (
    having(role={"enum": ["system", "developer", "user"]}, content=_SET),
    having(role={"const": "tool"}, content=_SET, tool_call_id=_TEXT),
    having(role={"const": "function"}, name=_TEXT),
    having(role={"const": "assistant"}, content=_SET),
    having(role={"const": "assistant"}, tool_calls={"type": "array", "minItems": 1}),
    having(role={"const": "assistant"}, function_call={"type": "object"}),
    *(
        having(role={"const": "assistant"}, **{name: _WORDS})
        for name in ("reasoning_content", "reasoning", "refusal")
    ),
)


@frozen(kw_only=True)
class TextPart:
    """A piece of text in a content that has several parts."""

    text: str
    type: Literal["text"] = field(default="text", metadata={KIND: True})

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's spelling."""
        return {"type": "text", "text": self.text}


@frozen(kw_only=True)
class RefusalPart:
    """A refusal in an assistant's content that has several parts. For an engine it is text: that is what the model said."""

    refusal: str
    type: Literal["refusal"] = field(default="refusal", metadata={KIND: True})

    @property
    def text(self) -> str:
        """What was said."""
        return self.refusal

    def as_json(self) -> dict[str, Any]:
        """Return it as text."""
        return {"type": "text", "text": self.refusal}


@frozen(kw_only=True)
class ImageUrl:
    """Where an image is: a URL, or the image itself as a data URL."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


def _image_url(value: Any) -> ImageUrl:
    # Some clients send the URL alone.
    return ImageUrl(url=value) if isinstance(value, str) else structure(value, ImageUrl)


@frozen(kw_only=True)
class ImagePart:
    """An image in a content that has several parts."""

    image_url: ImageUrl = field(metadata={STRUCTURE: _image_url, SHAPE: ImageUrl | str})
    type: Literal["image_url"] = field(default="image_url", metadata={KIND: True})

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's spelling."""
        image = {"url": self.image_url.url}
        if self.image_url.detail is not None:
            image["detail"] = self.image_url.detail
        return {"type": "image_url", "image_url": image}


Part = TextPart | RefusalPart | ImagePart

_PARTS: Final[dict[str, type[Part]]] = {
    "text": TextPart,
    "image_url": ImagePart,
    "refusal": RefusalPart,
}


def _part(value: Any) -> Part:
    kind = expect_object(value).get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise unexpected("text, image_url or refusal", kind, place="type")
    return structure(value, _PARTS[kind])


_CONTENT: Final = str | Annotated[tuple[Part, ...], NOT_EMPTY] | None


def _content(value: Any) -> str | tuple[Part, ...] | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise unexpected("text or a list of at least one part", value)
    return each(value, _part)


@frozen(kw_only=True)
class FunctionCall:
    """A function's name and the arguments that the model wrote for it, as text: they need not be valid JSON."""

    name: str
    arguments: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's spelling."""
        return {"name": self.name, "arguments": self.arguments}


@frozen(kw_only=True)
class ToolCall:
    """A call that the assistant asked for in an earlier turn."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's spelling."""
        return {"id": self.id, "type": self.type, "function": self.function.as_json()}


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    return () if value is None else structure(value, tuple[ToolCall, ...])


def _no_audio(value: Any) -> None:
    if value is not None:
        raise Fault("audio is not available here")


@define(kw_only=True)
class Message:
    """One turn. Everything that a template can show the model is carried on.

    Not frozen, but no less a value: conversations have dozens, and a frozen one takes twice the time to make.
    """

    RULES: ClassVar = {"anyOf": list(_BY_ROLE)}

    role: Role
    content: str | tuple[Part, ...] | None = field(
        default=None, metadata={STRUCTURE: _content, SHAPE: _CONTENT}
    )
    """None only on an assistant's turn that says something in another field, and of a function that returned nothing."""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = field(
        default=(), metadata={STRUCTURE: _tool_calls, SHAPE: tuple[ToolCall, ...] | None}
    )
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The newer name of `reasoning_content`; clients send back whichever they read."""
    refusal: str | None = None
    function_call: FunctionCall | None = None
    """How assistants called functions before `tool_calls`."""
    audio: None = field(default=None, metadata={STRUCTURE: _no_audio})

    def __attrs_post_init__(self) -> None:
        """Refuse a turn that says nothing, and a result that doesn't say whose it is."""
        silent = self.role == "function" or (self.role == "assistant" and self._says_something_else)
        if self.content is None and not silent:
            raise Fault("is required", place="content")
        if self.role == "tool" and self.tool_call_id is None:
            raise Fault("is required when role is tool", place="tool_call_id")
        if self.role == "function" and self.name is None:
            raise Fault("is required when role is function", place="name")

    @property
    def thoughts(self) -> str | None:
        """The reasoning, by whichever name it came."""
        return self.reasoning_content or self.reasoning

    @property
    def text(self) -> str | None:
        """The content as plain text, text parts joined by line ends; None if it has anything but text."""
        if not isinstance(self.content, tuple):
            return self.content or ""
        texts = [part.text for part in self.content if not isinstance(part, ImagePart)]
        return "\n".join(texts) if len(texts) == len(self.content) else None

    @property
    def is_plain(self) -> bool:
        """Role, text and name say it all."""
        return isinstance(self.content, str) and not (
            self.tool_call_id is not None or self._says_something_else
        )

    @property
    def _says_something_else(self) -> bool:
        return bool(
            self.tool_calls
            or self.reasoning_content
            or self.reasoning
            or self.refusal
            or self.function_call
        )

    def as_json(self) -> dict[str, Any]:
        """Return OpenAI's spelling, with only the fields that say something (and content always)."""
        content = self.content
        optional = {
            "name": self.name,
            "tool_calls": [call.as_json() for call in self.tool_calls] or None,
            "tool_call_id": self.tool_call_id or None,
            "reasoning_content": self.thoughts or None,
            "refusal": self.refusal or None,
            "function_call": self.function_call and self.function_call.as_json(),
        }
        return {
            "role": self.role,
            "content": [part.as_json() for part in content]
            if isinstance(content, tuple)
            else content,
            **{name: value for name, value in optional.items() if value is not None},
        }
