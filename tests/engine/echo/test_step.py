"""A decode step of all streams, seen from another process."""

from statistics import median

import pytest
import trio

from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2
from tests.support.h2_client import open_h2_client
from tests.support.processes import engine

pytestmark = pytest.mark.e2e

STREAMS = 100


def test_a_step_of_all_streams_reaches_the_client_in_one_read():
    with engine() as process:
        reads = trio.run(_frames_in_each_read, process.port)
    # Measured: 100 (98 on average); 1 (2.1 on average) when every stream's message is written by itself.
    assert median(reads) > STREAMS * 0.8


async def _frames_in_each_read(port: int) -> list[int]:
    request = ark_pb2.InferenceRequest()
    fill_value(request.inputs["messages.role"], [b"user"])
    fill_value(request.inputs["messages.content"], [b"count=25 gap_s=0.04 first_delay_s=0.5"])
    async with open_h2_client(port) as client:
        calls = [await client.call(request) for _ in range(STREAMS)]
        await client.read_until_ended(*calls)
        return client.reads
