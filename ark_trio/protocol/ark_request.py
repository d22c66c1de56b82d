"""A request as an ARK message.

Always the google.protobuf classes: 20 plain messages take 10 µs with them and 575 µs with betterproto's.
Source: docs/engine.md, "Request inputs".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ark_trio.errors import InvalidRequest
from ark_trio.protocol.chat_body import PARAMETERS
from ark_trio.protocol.chat_request import ChatRequest
from ark_trio.protocol.completion_body import PARAMETERS as COMPLETION_PARAMETERS
from ark_trio.protocol.completion_body import Prompt
from ark_trio.protocol.completion_request import CompletionRequest
from ark_trio.protocol.function_call import in_todays_words
from ark_trio.protocol.message import Message
from ark_trio.protocol.parameter import Parameter, engine_inputs
from ark_trio.protocol.tokenize import DetokenizeBody, TokenizeBody
from ark_trio.protocol.value import NotEncodable, fill_value
from ark_wire import ark_pb2


def encode_chat(chat: ChatRequest, *, req_id: str, model: str) -> ark_pb2.InferenceRequest:
    """Return the engine's request. `model` is the name that the chosen decoder knows.

    Raises:
        InvalidRequest: a value that JSON can spell but the contract can't carry; `param` says where it is.
    """
    request = ark_pb2.InferenceRequest(req_id=req_id, model_name=model)
    _fill_messages(request, chat.messages)
    _fill_params(request, chat.params, PARAMETERS)
    return request


def encode_completion(
    asked: CompletionRequest, prompt: Prompt, *, req_id: str, model: str
) -> ark_pb2.InferenceRequest:
    """Return the engine's request for one prompt. Raises as `encode_chat`."""
    request = ark_pb2.InferenceRequest(req_id=req_id, model_name=model, method="completion")
    _fill(request, "prompt", prompt, param="prompt")
    _fill_params(request, asked.params, COMPLETION_PARAMETERS)
    return request


def encode_tokenize(asked: TokenizeBody, *, req_id: str, model: str) -> ark_pb2.InferenceRequest:
    """Return the engine's request for text or a conversation. Raises as `encode_chat`."""
    request = ark_pb2.InferenceRequest(req_id=req_id, model_name=model, method="tokenize")
    if asked.prompt is not None:
        _fill(request, "text", asked.prompt, param="prompt")
    else:
        _fill_messages(request, asked.messages or ())
    return request


def encode_detokenize(
    asked: DetokenizeBody, *, req_id: str, model: str
) -> ark_pb2.InferenceRequest:
    """Return the engine's request for tokens. Raises as `encode_chat`."""
    request = ark_pb2.InferenceRequest(req_id=req_id, model_name=model, method="detokenize")
    _fill(request, "tokens", asked.tokens, param="tokens")
    return request


def _fill_params(
    request: ark_pb2.InferenceRequest, params: Mapping[str, Any], table: Mapping[str, Parameter]
) -> None:
    for key, (param, value) in engine_inputs(params, table).items():
        _fill(request, key, value, param=param)


def _fill(request: ark_pb2.InferenceRequest, key: str, value: Any, *, param: str) -> None:
    try:
        fill_value(request.inputs[key], value)
    except NotEncodable as error:
        place = param + error.place
        raise InvalidRequest(f"{place}: {error.reason}.", param=place) from error


def _fill_messages(request: ark_pb2.InferenceRequest, given: Sequence[Message]) -> None:
    if all(map(_is_text_alone, given)):  # as nearly all are, so nothing is asked twice about them
        _fill_flat(request, given, [str(message.content) for message in given])
        return
    messages = list(in_todays_words(given))
    # The flat lists are what older engines know; `messages`, where it says more, is the truth for the others.
    texts = [text for message in messages if (text := message.text) is not None]
    if len(texts) == len(messages):
        _fill_flat(request, messages, texts)
        if any(message.name is not None for message in messages):
            names = [(message.name or "").encode() for message in messages]
            request.inputs["messages.name"].bytes_list.values.extend(names)
    if any(message.name is not None or not message.is_plain for message in messages):
        _fill(request, "messages", [message.as_json() for message in messages], param="messages")


def _is_text_alone(message: Message) -> bool:
    """Whether role and text say all of it, in the words of any time."""
    return message.name is None and message.is_plain


def _fill_flat(
    request: ark_pb2.InferenceRequest, messages: Sequence[Message], texts: Sequence[str]
) -> None:
    inputs = request.inputs
    inputs["messages.role"].bytes_list.values.extend([m.role.encode() for m in messages])
    inputs["messages.content"].bytes_list.values.extend([text.encode() for text in texts])
