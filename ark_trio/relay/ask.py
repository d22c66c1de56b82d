"""What a request asks of an engine, whichever API family it came by: the seam between the families and the relay."""

from typing import Protocol

import trio
from attrs import define

from ark_trio.fleet.load import Work
from ark_trio.relay.record import Record
from ark_trio.rpc.call import Metadata
from ark_wire import ark_pb2

_LIKELY_TOKENS = 256
"""Of an answer for which nobody set a limit."""
_MOST_LIKELY_TOKENS = 2048
"""Limits are often set far beyond what comes."""


class Encode(Protocol):
    """Spells the engine's request; `model` is the name that the chosen decoder knows."""

    def __call__(self, *, req_id: str, model: str) -> ark_pb2.InferenceRequest:
        """Return it."""


@define(kw_only=True, eq=False)
class Ask:
    """One backend call to make."""

    model: str
    unary: bool = False
    """The method answers with one message, by the contract's Call."""
    encode: Encode
    record: Record
    """Of the request that it is made for; its request_id is the client's, the engine's own req_id is another."""
    batch: bool = False
    """Others go first, where there is a line."""
    trace: Metadata = ()
    """The request's place in a trace, as W3C trace context spells it."""
    key: bytes | None = None
    """What binds it to the decoder of requests before it; None: nothing."""
    prompt_tokens: int = 0
    """About how many."""
    max_tokens: int | None = None
    """The most that may be generated, all choices together; None: nobody said."""

    aside: trio.CapacityLimiter | None = None
    """What allows a thread in which to spell it. None: it is spelled in no time."""

    @property
    def work(self) -> Work:
        """What it is likely to ask of a decoder."""
        answer = 0 if self.unary else _LIKELY_TOKENS
        if self.max_tokens is not None:
            answer = min(self.max_tokens, _MOST_LIKELY_TOKENS)
        return Work(prompt=self.prompt_tokens, answer=answer)

    @property
    def most_answer_tokens(self) -> int:
        """What the answer may come to, to be set aside until it is known."""
        if self.unary:
            return 0
        return _LIKELY_TOKENS if self.max_tokens is None else self.max_tokens

    def forget(self) -> None:
        """Let go of what the caller said: the answer has begun, so nobody else is asked, and it may last for minutes."""
        self.encode = _forgotten

    @property
    def metadata(self) -> Metadata:
        """What travels beside the request."""
        return (("x-request-id", self.record.request_id), *self.trace)


def _forgotten(*, req_id: str, model: str) -> ark_pb2.InferenceRequest:
    raise AssertionError(f"{req_id} is asked of {model} although an answer has begun")
