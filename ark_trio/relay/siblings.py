"""The workers of one gateway, which tell one another what they know, so that whichever is asked answers for all.

Each listens on an abstract unix socket, asks the others there, and trusts only processes of its own user. A file's name would
outlive a killed process; an abstract one does not, and needs no folder that can be written.
"""

import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import orjson
import structlog
import trio
from attrs import frozen

from ark_trio.relay.crowd import Crowd

log = structlog.get_logger()

Topic = Literal["reading", "status"]
Tell = Callable[[Topic], Any]
"""Returns what this process knows, as plain JSON values."""

ANSWER_S = 1.0
"""Time that a sibling has for its whole answer; one that hangs must not hide the others."""
MAX_BYTES = 16 << 20
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")


@frozen(kw_only=True)
class Siblings:
    """Where they are."""

    number: int = 1
    """This worker's."""
    count: int = 1
    crowd: Crowd | None = None
    """How many connections each has; None where there is one."""
    family: str = ""
    """What their sockets' names begin with: their parent's secret, so that two gateways of one user don't meet."""

    async def serve(self, tell: Tell) -> None:
        """Answer the others with what `tell` says, until cancelled."""
        if self.count == 1:
            return
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            await listener.bind(self._address(self.number))
            listener.listen(_BACKLOG)
            answer = partial(_answer, tell)
            await trio.serve_listeners(answer, [trio.SocketListener(listener)])

    async def gather(self, topic: Topic, own: Any) -> dict[int, Any]:
        """Return what each worker says, `own` for this one, None for one that did not answer."""
        said = dict.fromkeys(range(1, self.count + 1))
        said[self.number] = own

        async def ask(number: int) -> None:
            said[number] = await _ask(self._address(number), topic)

        # The request's: each question has its bound.
        async with trio.open_nursery() as nursery:
            for number in said:
                if number != self.number:
                    nursery.start_soon(ask, number)
        return said

    def _address(self, number: int) -> bytes:
        return f"\0ark-trio-{self.family}-{number}".encode()


ALONE = Siblings()


async def _ask(address: bytes, topic: Topic) -> Any:
    with trio.move_on_after(ANSWER_S), trio.socket.socket(socket.AF_UNIX) as sock:
        try:
            await sock.connect(address)
            if not _is_ours(sock):
                return None
            stream = trio.SocketStream(sock)
            await stream.send_all(topic.encode() + b"\n")
            said = bytearray()
            async for data in stream:
                said += data
                if len(said) > MAX_BYTES:
                    return None
            return orjson.loads(said)
        except (OSError, trio.BrokenResourceError, orjson.JSONDecodeError) as error:
            log.info("sibling_silent", reason=str(error))
    return None


async def _answer(tell: Tell, stream: trio.SocketStream) -> None:
    try:
        with trio.move_on_after(ANSWER_S):
            topic = (await stream.receive_some(64)).strip()
            if topic in (b"reading", b"status") and _is_ours(stream.socket):
                await stream.send_all(orjson.dumps(tell(topic.decode())))  # type: ignore[arg-type]  # one of them
    except trio.BrokenResourceError:
        pass  # who asked has given up
    except Exception:
        log.exception("sibling_not_told")
    finally:
        stream.socket.close()


def _is_ours(sock: trio.socket.SocketType) -> bool:
    """Whether the other end is a process of our user."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return bool(uid == os.geteuid())
