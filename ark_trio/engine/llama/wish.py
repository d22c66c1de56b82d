"""What a decoder asks of a prefiller, at both ends."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ark_trio.engine.llama.readers import switch
from ark_trio.errors import InvalidRequest
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2

METHOD = "prefill"


@frozen(kw_only=True)
class Wish:
    """A prompt whose KV state is wanted."""

    req_id: str
    tokens: list[int]
    exact: bool = False
    """To the bit as a fresh computation would give it."""
    salt: str = ""
    """Prompts of another salt share no cached prefix."""


def encode_wish(wish: Wish) -> ark_pb2.InferenceRequest:
    """Return the request for a prefiller."""
    request = ark_pb2.InferenceRequest(req_id=wish.req_id, method=METHOD)
    fill_value(request.inputs["tokens"], wish.tokens)
    if wish.exact:
        fill_value(request.inputs["exact"], wish.exact)
    if wish.salt:
        fill_value(request.inputs["cache_salt"], wish.salt)
    return request


def read_wish(req_id: str, inputs: Mapping[str, Any], vocabulary: int) -> Wish:
    """Return what is asked of a prefiller.

    Raises:
        InvalidRequest: it is malformed.
    """
    exact, salt = inputs.get("exact", False), inputs.get("cache_salt", "")
    switch("exact", exact)
    if not isinstance(salt, str):
        raise InvalidRequest("cache_salt must be text.", param="cache_salt")
    return Wish(req_id=req_id, tokens=read_tokens(inputs, vocabulary), exact=exact, salt=salt)


def read_tokens(
    inputs: Mapping[str, Any], vocabulary: int, key: str = "tokens", *, least: int = 1
) -> list[int]:
    """Return the token ids under `key`, at least so many.

    Raises:
        InvalidRequest: they are missing or no ids of the model's.
    """
    tokens = inputs.get(key)
    if (
        not isinstance(tokens, list)
        or len(tokens) < least
        or not all(type(token) is int and 0 <= token < vocabulary for token in tokens)
    ):
        how_many = f"at least {least} token id, each" if least else "token ids, each"
        raise InvalidRequest(f"{key} must be a list of {how_many} below {vocabulary}.", param=key)
    return list(tokens)
