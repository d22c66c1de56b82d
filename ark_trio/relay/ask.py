"""What a request asks of an engine, whichever API family it came by: the seam between the families and the relay."""

from typing import Protocol

from attrs import frozen

from ark_trio.relay.record import Record
from ark_trio.rpc.client import Metadata
from ark_wire import ark_pb2


class Encode(Protocol):
    """Spells the engine's request; `model` is the name that the chosen decoder knows."""

    def __call__(self, *, req_id: str, model: str) -> ark_pb2.InferenceRequest:
        """Return it."""


@frozen(kw_only=True)
class Ask:
    """One backend call to make."""

    model: str
    unary: bool = False
    """The method answers with one message, by the contract's Call."""
    encode: Encode
    record: Record
    """Of the request that it is made for; its request_id is the client's, the engine's own req_id is another."""
    trace: Metadata = ()
    """The request's place in a trace, as W3C trace context spells it."""

    @property
    def metadata(self) -> Metadata:
        """What travels beside the request."""
        return (("x-request-id", self.record.request_id), *self.trace)
