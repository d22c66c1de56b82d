"""What is written to a connection when."""

import asyncio
from typing import cast

from attrs import define, field

from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.server_connection import GatheringTransport


@define(eq=False)
class Transport:
    """A transport that remembers."""

    writes: list[bytes] = field(factory=list)
    closed: bool = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def gathered(*turns: list[bytes], close: bool = False) -> Transport:
    """Write each list in one turn of the loop."""
    transport = Transport()

    async def run() -> None:
        gathering = GatheringTransport(cast(asyncio.Transport, transport))
        for turn in turns:
            for data in turn:
                gathering.write(data)
            if not close:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        if close:
            gathering.close()
            gathering.write(b"late")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async with open_bridge() as bridge:
        await bridge.run(run)
    return transport


async def test_what_a_turn_writes_leaves_in_one_write():
    transport = await gathered([b"a", b"", b"b", b"c"], [b"d", b"e"])
    assert transport.writes == [b"abc", b"de"]


async def test_much_leaves_before_the_turn_ends():
    transport = await gathered([b"x" * 200_000] * 4)
    assert [len(data) for data in transport.writes] == [400_000, 400_000]


async def test_closing_writes_what_is_held_and_nothing_after():
    transport = await gathered([b"a", b"b"], close=True)
    assert (transport.writes, transport.closed) == ([b"ab"], True)
