"""What the connection to an engine hands on of a streamed answer: a message, or what is known of it without parsing it."""

from attrs import define

from ark_trio.protocol.step import ChoiceDelta
from ark_wire import ark_pb2


@define
class TextMessage:
    """A message that adds text to a choice or ends it, and tells totals, and nothing else: nearly every one."""

    delta: ChoiceDelta
    counts: list[int | None]
    """Prompt, completion, reasoning and cached tokens; None: it tells nothing of them."""


Message = ark_pb2.InferenceResponse | TextMessage
