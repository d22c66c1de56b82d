"""Every endpoint: what it takes, what it answers. The one list from which the description and the documentation come."""

from typing import Any, Final, Literal

from attrs import frozen

from ark_trio.protocol import answer_schema as answers
from ark_trio.protocol.chat_body import ChatBody
from ark_trio.protocol.completion_body import CompletionBody
from ark_trio.protocol.tokenize import DetokenizeBody, TokenizeBody

REQUEST_ERRORS: Final = (400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 501, 502, 503, 504)
"""What a request that an engine serves may come to."""
_NO_KEY: Final = 401


@frozen(kw_only=True)
class Endpoint:
    """One path and method."""

    method: Literal["get", "post"]
    path: str
    operation: str
    summary: str
    answer: Any
    """Class of the body with status 200; None: it is no JSON."""
    body: Any = None
    """Class of the request's body."""
    event: Any = None
    """Class of a stream's events."""
    errors: tuple[int, ...] = ()
    other: tuple[tuple[int, Any], ...] = ()
    """Further statuses with a body of their own."""
    both: bool = True
    """Served with and without /v1."""

    @property
    def keyed(self) -> bool:
        """Where there are API keys, it needs one."""
        return _NO_KEY in self.errors


ENDPOINTS: Final = (
    Endpoint(
        method="post",
        path="/v1/chat/completions",
        operation="createChatCompletion",
        summary="Answer a conversation, streaming or in one piece.",
        body=ChatBody,
        answer=answers.ChatCompletion,
        event=answers.ChatCompletionChunk,
        errors=REQUEST_ERRORS,
    ),
    Endpoint(
        method="post",
        path="/v1/completions",
        operation="createCompletion",
        summary="Complete one or several prompts, streaming or in one piece.",
        body=CompletionBody,
        answer=answers.Completion,
        event=answers.Completion,
        errors=REQUEST_ERRORS,
    ),
    Endpoint(
        method="post",
        path="/v1/tokenize",
        operation="tokenize",
        summary="Cut text, or a conversation as its chat template spells it, into tokens.",
        body=TokenizeBody,
        answer=answers.Tokens,
        errors=REQUEST_ERRORS,
    ),
    Endpoint(
        method="post",
        path="/v1/detokenize",
        operation="detokenize",
        summary="Spell tokens as text.",
        body=DetokenizeBody,
        answer=answers.Text,
        errors=REQUEST_ERRORS,
    ),
    Endpoint(
        method="get",
        path="/v1/models",
        operation="listModels",
        summary="List what the ready decoders serve.",
        answer=answers.ModelList,
        errors=(401,),
    ),
    Endpoint(
        method="get",
        path="/v1/models/{model}",
        operation="retrieveModel",
        summary="Describe one model.",
        answer=answers.Model,
        errors=(401, 404),
    ),
    Endpoint(
        method="get",
        path="/livez",
        operation="tellLife",
        summary="The process lives.",
        answer=answers.Status,
        both=False,
    ),
    Endpoint(
        method="get",
        path="/health",
        operation="tellHealth",
        summary="As /livez.",
        answer=answers.Status,
        both=False,
    ),
    Endpoint(
        method="get",
        path="/readyz",
        operation="tellReadiness",
        summary="200 with a ready decoder and no drain, else 503; the body says which.",
        answer=answers.Status,
        other=((503, answers.Status),),
        both=False,
    ),
    Endpoint(
        method="get",
        path="/version",
        operation="tellVersion",
        summary="The gateway's version.",
        answer=answers.Version,
        both=False,
    ),
)
