"""Whether a started service serves yet, asked from outside as its users would."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import trio
from trio.abc import Stream

from ark_trio.config import Bind
from ark_trio.up.plan import Service

POLL_S = 0.1
_ANSWER_LIMIT_S = 2.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (called, not bound)
_HEAD_BYTES = 1024

Probe = Callable[[Bind], Awaitable[bool]]


async def wait_ready(
    services: Sequence[Service], probes: Mapping[str, Probe], show: Callable[[set[str]], None]
) -> None:
    """Return when all services are ready; until then call `show` with those that are, at every look."""
    ready: set[str] = set()
    while True:
        for service in services:
            probe = probes.get(service.name, accepts)
            if service.name not in ready and await probe(service.bind):
                ready.add(service.name)
        show(ready)
        if len(ready) == len(services):
            return
        await trio.sleep(POLL_S)


async def accepts(bind: Bind) -> bool:
    """Somebody accepts connections there: all that can be asked of any gRPC server."""
    with trio.move_on_after(_ANSWER_LIMIT_S):
        try:
            await (await _connect(bind)).aclose()
        except OSError:
            return False
        return True
    return False


async def answers_ready(bind: Bind) -> bool:
    """The gateway says that a decoder is ready for it."""
    with trio.move_on_after(_ANSWER_LIMIT_S):
        try:
            async with await _connect(bind) as stream:
                await stream.send_all(
                    b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                head = await stream.receive_some(_HEAD_BYTES)
        except (OSError, trio.BrokenResourceError):
            return False
        return bytes(head).startswith(b"HTTP/1.1 200 ")
    return False


def reachable(bind: Bind) -> Bind:
    """Where a client on this host finds a listener that may be bound to every address."""
    return bind if bind.path else Bind(host=_ANY_ADDRESS.get(bind.host, bind.host), port=bind.port)


async def _connect(bind: Bind) -> Stream:
    if bind.path is not None:
        return await trio.open_unix_socket(Path(bind.path))
    where = reachable(bind)
    return await trio.open_tcp_stream(where.host, where.port)
