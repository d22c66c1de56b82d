"""The same promises under hypercorn's asyncio worker, which has a connection class of its own.

As in `hyper/connection.py`: one task reads, all the time, and another hands over, so that a client that leaves is noticed
whatever it sent before; a client that takes nothing for `stalled_write_s` is dropped; connections have their places; and what
goes wrong in one ends this one only. asyncio's transport holds what is unsent.
"""

import asyncio
from contextlib import suppress
from typing import Any

import h11
import structlog
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol

from ark_trio.hyper import fate
from ark_trio.hyper.config import HyperConfig

log = structlog.get_logger()

_READ_BYTES = 64 << 10
_CLOSE_S = 2.0
_PIPELINING_S = 5.0


class AsyncioConnection(TCPServer):
    """hypercorn's connection; see the module's docstring. asyncio-flavoured."""

    def __init__(
        self,
        app: Any,
        loop: asyncio.AbstractEventLoop,
        config: HyperConfig,
        context: Any,
        state: Any,
        *streams: Any,
    ) -> None:
        self._fate = fate.Fate()
        super().__init__(app, loop, config, context, {**state, fate.KEY: self._fate}, *streams)
        self._door = config.door
        self._limits = config.limits
        self._unread = bytearray()
        self._more_to_read = asyncio.Event()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Serve the connection to its end, if there is a place for it."""
        name = self.writer.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else None
        try:
            if self._door.enter(self, address) is None:
                await super().run()
        except Exception:
            log.exception("connection_crashed")
        finally:
            self._door.leave(self)
            self.drop()

    def drop(self) -> None:
        """Close at once."""
        self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        if isinstance(event, RawData):
            await self._write(event.data)
            return
        if isinstance(event, Updated):
            self._door.note(self, idle=event.idle)
        await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        async with self.send_lock:
            try:
                self.writer.write(data)
                async with asyncio.timeout(self._limits.stalled_write_s):
                    await self.writer.drain()
            except TimeoutError:
                log.info("client_stalled")
                self._fate.outcome = fate.CLIENT_STALLED
                self.drop()
            except (ConnectionError, RuntimeError):
                pass  # the reader has noticed, or will

    async def _read_data(self) -> None:
        """Read until the client has closed its side or is lost, whatever the protocol is busy with."""
        handing = self._task_group._task_group.create_task(self._hand_over())
        try:
            while await self._read_some():
                pass
        finally:
            handing.cancel()
        await self.idle_task.stop()
        await self.protocol.handle(Closed())

    async def _read_some(self) -> bool:
        try:
            data = await self.reader.read(_READ_BYTES)
        except OSError:
            return False
        self._unread += data
        self._more_to_read.set()
        if len(self._unread) > self._limits.max_pipelined_bytes:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PIPELINING_S):
                    await self._taken()
            if self._unread and self._answers():
                log.info("pipelining_refused", bytes=len(self._unread))
                return False
            await self._taken()
        return bool(data)

    async def _taken(self) -> None:
        while self._unread:
            self._room.clear()
            await self._room.wait()

    def _answers(self) -> bool:
        """Whether a whole request is being answered."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and protocol.connection.their_state in (
            h11.DONE,
            h11.MUST_CLOSE,
        )

    async def _hand_over(self) -> None:
        """Give the protocol what was read."""
        while True:
            self._more_to_read.clear()
            if not self._unread:
                await self._more_to_read.wait()
            data = bytes(self._unread)
            self._unread.clear()
            self._room.set()
            await self.protocol.handle(RawData(data))

    async def _close(self) -> None:
        """Close, within a bound: a client that does not read would be waited for."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await super()._close()
        except TimeoutError:
            self.drop()
