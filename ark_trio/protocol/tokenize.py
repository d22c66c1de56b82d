"""POST /tokenize and /detokenize: text to token ids and back, by the engine's own tokenizer.

The bodies and answers are those of vLLM's endpoints; OpenAI has none. Source: docs/engine.md, "Methods".
"""
# ruff: noqa: RUF009 - the calls in the defaults declare attrs fields

from typing import Annotated, Any, ClassVar

from attrs import NOTHING, frozen

from ark_trio.protocol.ark_fields import malformed
from ark_trio.protocol.chat_body import parse_messages
from ark_trio.protocol.fault import Fault
from ark_trio.protocol.json_body import MAX_DEPTH, parse_body
from ark_trio.protocol.message import Message
from ark_trio.protocol.parameter import acted_on, forwarded, refused
from ark_trio.protocol.rules import NULL, at_most_one, having
from ark_trio.protocol.sampling_body import MODEL_SHAPE, parse_model
from ark_trio.protocol.structure import NOT_EMPTY, TOKENS, parse_tokens
from ark_trio.protocol.value import from_value
from ark_wire import ark_pb2


def _optional_messages(value: Any) -> tuple[Message, ...] | None:
    return None if value is None else parse_messages(value)


@frozen(kw_only=True)
class TokenizeBody:
    """What to cut into tokens."""

    RULES: ClassVar = {
        "anyOf": [having(prompt={"type": "string"}), having(messages={"type": "array"})],
        "allOf": [at_most_one({"prompt": NULL, "messages": NULL})],
    }

    model: str = acted_on(
        "chooses the decoders", default=NOTHING, parse=parse_model, shape=MODEL_SHAPE
    )
    prompt: str | None = forwarded("string_", key="text", note="this or messages")
    messages: tuple[Message, ...] | None = forwarded(
        "value_list",
        parse=_optional_messages,
        shape=Annotated[tuple[Message, ...], NOT_EMPTY] | None,
        note="as the chat template spells them",
    )
    add_special_tokens: Any = refused("can't be chosen here")
    add_generation_prompt: Any = refused("can't be left out here", unless=(True,))
    return_token_strs: Any = refused("is not available here", unless=(False,))

    def __attrs_post_init__(self) -> None:
        """Check that there is one thing to tokenize."""
        if (self.prompt is None) == (self.messages is None):
            raise Fault("expected either this or messages", place="prompt")


@frozen(kw_only=True)
class DetokenizeBody:
    """Tokens to spell."""

    model: str = acted_on(
        "chooses the decoders", default=NOTHING, parse=parse_model, shape=MODEL_SHAPE
    )
    tokens: tuple[int, ...] = forwarded(
        "int64_list", parse=parse_tokens, default=NOTHING, shape=TOKENS
    )


def parse_tokenize(body: bytes, max_depth: int = MAX_DEPTH) -> TokenizeBody:
    """Parse and check a request body. Raises InvalidRequest, and nothing else, whatever the bytes are."""
    return parse_body(body, TokenizeBody, max_depth)[0]


def parse_detokenize(body: bytes, max_depth: int = MAX_DEPTH) -> DetokenizeBody:
    """Parse and check a request body. Raises InvalidRequest, and nothing else, whatever the bytes are."""
    return parse_body(body, DetokenizeBody, max_depth)[0]


def tokenize_body(response: ark_pb2.InferenceResponse) -> dict[str, Any]:
    """Return the answer to a client.

    Raises:
        BadBackend: the engine's answer is not what the contract says.
    """
    outputs = {key: from_value(value) for key, value in response.outputs.items()}
    tokens = outputs.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise malformed("tokens")
    length = outputs.get("max_model_len")
    return {
        "count": len(tokens),
        "max_model_len": length if type(length) is int else None,
        "tokens": tokens,
        "token_strs": None,
    }


def detokenize_body(response: ark_pb2.InferenceResponse) -> dict[str, Any]:
    """Return the answer to a client. Raises as `tokenize_body`."""
    text = from_value(response.outputs["text"]) if "text" in response.outputs else None
    if not isinstance(text, str):
        raise malformed("text")
    return {"prompt": text}
