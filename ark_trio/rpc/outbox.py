"""What an engine has to say to one caller: the mirror image of `Mailbox`, bounded the other way.

An engine hands over messages from Trio. While the caller keeps up they become HTTP/2 frames right there, without
waking any task; only when a window or the socket is full they wait here for the asyncio task that owns the call.
"""

import asyncio
from collections import deque
from typing import Any

import trio
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Stream

from ark_trio.errors import ArkError
from ark_wire import ark_pb2

Response = ark_pb2.InferenceResponse


class Outbox:
    """The way from one engine task to its caller."""

    def __init__(self, call: "Stream[Any, Response]", limit_bytes: int = 256 << 10) -> None:
        self._call = call
        self._limit_bytes = limit_bytes
        """Full from here on; the message that reaches it is still taken."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._ended = False
        self._error: ArkError | None = None
        self._flowing = False
        """Headers are out and everything before has become frames."""
        self._arrived = asyncio.Event()
        self._room = trio.Event()

    def offer(self, message: Response) -> bool:
        """Take one message without waiting. False: full, so await `room` before the next."""
        self._send(_framed(message))
        return self._waiting_bytes < self._limit_bytes

    async def put(self, message: Response) -> None:
        """Take one message, waiting while the caller reads too slowly. Trio-flavoured, always a checkpoint."""
        self._send(_framed(message))
        await self.room()

    async def room(self) -> None:
        """Wait until there is room. Trio-flavoured, always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._waiting_bytes >= self._limit_bytes:
            self._room = trio.Event()
            await self._room.wait()

    def close(self, error: ArkError | None = None) -> None:
        """No more will come. The first word is final."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._arrived.set()

    async def drain(self) -> None:
        """Send what comes until the end. asyncio-flavoured, run by the task that owns the call.

        Raises:
            ArkError: what `close` was given, once the messages before it are out.
        """
        while await self._next():
            if not self._call._send_initial_metadata_done:
                await self._call.send_initial_metadata()
            while self._waiting:
                # Left in place while it is sent, so that nothing overtakes it.
                await self._call._stream.send_data(self._waiting[0])
                self._waiting_bytes -= len(self._waiting.popleft())
                self._room.set()
            self._flowing = True
        if self._error is not None:
            raise self._error

    async def _next(self) -> bool:
        """Wait for something to send; False at the end."""
        if not self._waiting and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        return bool(self._waiting)

    def _send(self, data: bytes) -> None:
        if self._ended:
            return
        if self._flowing and not self._waiting and _fits(self._call._stream, len(data)):
            self._write(data)
        else:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._arrived.set()

    def _write(self, data: bytes) -> None:
        stream = self._call._stream
        assert stream.id is not None  # noqa: S101 (the server gave it)
        stream._h2_connection.send_data(stream.id, data)
        stream._transport.write(stream._h2_connection.data_to_send())
        stream.connection.data_send_process()


def _framed(message: Response) -> bytes:
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def _fits(stream: H2Stream, size: int) -> bool:
    """Whether `size` bytes can become one frame now."""
    h2 = stream._h2_connection
    return (
        stream.id is not None
        and stream.connection.write_ready.is_set()
        and stream.closable
        and size <= h2.max_outbound_frame_size
        and size <= h2.local_flow_control_window(stream.id)
    )
