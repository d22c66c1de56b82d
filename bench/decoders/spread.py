"""A scripted ARK decoder on gRPC's own server, a task a stream, each with a clock of its own: messages arrive one by one.

So does any engine behind a stock gRPC server. `python bench/decoders/spread.py PORT`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc

from ark_wire import ark_pb2
from bench.decoders import messages

_GOLDEN = 0.618034
"""Streams that begin together step apart: multiples of it fill a step evenly."""


class Engine:
    """Answers calls."""

    def __init__(self) -> None:
        self._begun = 0

    async def stream(
        self, request: ark_pb2.InferenceRequest, _context: object
    ) -> AsyncIterator[bytes]:
        """Say the tokens that are wanted."""
        wanted = messages.wanted(request)
        pace_s, loop = wanted.pace_ms / 1000, asyncio.get_running_loop()
        self._begun += 1
        yield messages.token()[5:]
        due = loop.time() + self._begun * _GOLDEN % 1 * pace_s
        for _ in range(1, wanted.tokens):
            if pace_s:
                due += pace_s
                await asyncio.sleep(due - loop.time())
            yield messages.token()[5:]
        yield messages.LAST[5:]

    async def control(self, request: ark_pb2.ControlRequest, _context: object) -> Any:
        """Say what is served."""
        return messages.status(request)


async def main(port: int) -> None:
    engine = Engine()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {
        "StreamingCall": grpc.unary_stream_rpc_method_handler(
            engine.stream, ark_pb2.InferenceRequest.FromString
        ),
        "Control": grpc.unary_unary_rpc_method_handler(
            engine.control,
            ark_pb2.ControlRequest.FromString,
            ark_pb2.ControlResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.Inference", handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
