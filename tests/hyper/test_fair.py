"""Workers that accept at one socket have about as many connections each."""

import socket

import trio

from ark_trio.hyper.fair import FairListener
from ark_trio.relay.crowd import Crowd


async def test_whoever_has_fewer_gets_the_next():
    """Without it the same one, which the kernel wakes first, takes all."""
    crowd, held = Crowd(3), {1: 0, 2: 0, 3: 4}
    for worker, count in held.items():
        crowd.note(worker, count)
    streams = []

    async def work(worker: int, listener: socket.socket) -> None:
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with FairListener(plain, crowd, worker) as fair:
            while True:
                streams.append(await fair.accept())
                held[worker] += 1
                crowd.note(worker, held[worker])

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        async with trio.open_nursery() as nursery:
            for worker in held:
                nursery.start_soon(work, worker, door.dup())
            for number in range(1, 27):
                streams.append(await trio.open_tcp_stream(*door.getsockname()))
                with trio.fail_after(2):
                    while sum(held.values()) < 4 + number:
                        await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    for stream in streams:
        await stream.aclose()
    assert max(held.values()) - min(held.values()) <= 2, held


async def test_one_that_is_fuller_takes_what_nobody_else_does():
    crowd = Crowd(2)
    crowd.note(1, 9)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(door.dup()))
        async with FairListener(plain, crowd, 1) as fair:
            client = await trio.open_tcp_stream(*door.getsockname())
            with trio.fail_after(1):
                await (await fair.accept()).aclose()
            await client.aclose()
