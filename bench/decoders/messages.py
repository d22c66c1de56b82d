"""What every decoder of the benchmark says: tokens of one size, each with the instant at which it was written.

The instant stands in the text, so a client on the same machine reads off it how long a token was under way.
"""

import time
from typing import Final

from attrs import frozen

from ark_trio.protocol.ark_step import encode_step
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_wire import ark_pb2

MODEL: Final = "bench"
_PLACE: Final = b"0000000000"


def stamp() -> bytes:
    """Return the instant in µs of the machine's monotonic clock, as ten digits."""
    return b"%010d" % (time.monotonic_ns() // 1000 % 10**10)


@frozen
class Wanted:
    """What a request asks for."""

    tokens: int
    pace_ms: int
    """Between two tokens; 0: as fast as they are taken."""


def wanted(request: ark_pb2.InferenceRequest) -> Wanted:
    """Read a request: `max_new_tokens`, and a last user message such as `pace=20`."""
    text = request.inputs["messages.content"].bytes_list.values[-1]
    pace = int(text.partition(b"pace=")[2] or b"0")
    return Wanted(request.inputs["max_new_tokens"].int64_, pace)


def _spell(content: str, finish: str | None = None) -> bytes:
    delta = ChoiceDelta(index=0, content=content, finish_reason=finish)
    step = Step(
        choices=(delta,), usage=Usage(prompt_tokens=12, completion_tokens=16, reasoning_tokens=0)
    )
    (response,) = encode_step(step, req_id="b" * 32, model="deepseek-r1-0528", first=True)
    body = response.SerializeToString(deterministic=True)
    return b"\0" + len(body).to_bytes(4, "big") + body


_TOKEN: Final = _spell(" " + _PLACE.decode())
LAST: Final = _spell("", "length")
"""The finish reason, in a message of its own, behind gRPC's prefix."""
TOKEN_BYTES: Final = len(_TOKEN)


def token() -> bytes:
    """Return one token's message with the instant of now, behind gRPC's prefix."""
    return _TOKEN.replace(_PLACE, stamp())


def status(request: ark_pb2.ControlRequest) -> ark_pb2.ControlResponse:
    """Answer GetStatus and HealthCheck."""
    outputs = {
        "models": ark_pb2.Value(string_list=ark_pb2.StringList(values=[MODEL])),
        "role": ark_pb2.Value(string_="decoder"),
        "status": ark_pb2.Value(string_="ok"),
    }
    return ark_pb2.ControlResponse(req_id=request.req_id, outputs=outputs)
