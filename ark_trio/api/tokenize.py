"""POST /tokenize and /detokenize."""

from functools import partial
from typing import Final

from ark_trio.api.body import read_json
from ark_trio.api.calls import ask_for, note_request, take_reply
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, json_reply
from ark_trio.api.routes import Routes
from ark_trio.protocol.ark_request import encode_detokenize, encode_tokenize
from ark_trio.protocol.callers_words import own_names
from ark_trio.protocol.parameter import parameters_of
from ark_trio.protocol.tokenize import (
    TokenizeBody,
    detokenize_body,
    parse_detokenize,
    parse_tokenize,
    tokenize_body,
)

routes = Routes()

_NAMES: Final = own_names(parameters_of(TokenizeBody))


@routes.post("/tokenize", "/v1/tokenize")
async def tokenize(here: Exchange) -> Reply:
    """Cut text, or a conversation as its template spells it, into tokens."""
    asked = await read_json(here, parse_tokenize)
    note_request(here, asked.model, names=lambda: _NAMES)
    ask = ask_for(here, asked.model, partial(encode_tokenize, asked), unary=True)
    return json_reply(tokenize_body(await take_reply(here, ask)))


@routes.post("/detokenize", "/v1/detokenize")
async def detokenize(here: Exchange) -> Reply:
    """Spell tokens as text."""
    asked = await read_json(here, parse_detokenize)
    note_request(here, asked.model)
    ask = ask_for(here, asked.model, partial(encode_detokenize, asked), unary=True)
    return json_reply(detokenize_body(await take_reply(here, ask)))
