"""The gateway's process-wide parts, opened once and owned by one task."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio
from attrs import define, field

from ark_trio.config import Settings
from ark_trio.errors import ArkError, InternalError, ShuttingDown, Unreachable
from ark_trio.fleet.admission import Admission
from ark_trio.fleet.fleet import Fleet
from ark_trio.fleet.roster import Roster
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_request import ChatRequest
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ChannelOptions, Response
from ark_trio.rpc.mailbox import Mailbox

log = structlog.get_logger()

FIRST_LOOK_S = 1.0
"""How long start-up waits for the decoders' first answers; later they are found by the watch."""


@define(kw_only=True, eq=False)
class Gateway:
    """What every request shares."""

    settings: Settings
    roster: Roster
    admission: Admission
    started_at: int
    """Unix time; the stable `created` of the models."""
    draining: bool = False
    _open: set[Mailbox[Response]] = field(factory=set)

    @property
    def fleet(self) -> Fleet:
        """The decoders."""
        return self.roster.fleet

    def apply(self, settings: Settings) -> None:
        """Take new settings: decoders and limits, without a touch to what runs."""
        self.settings = settings
        limits = settings.limits
        self.admission.resize(max_running=limits.max_requests, max_waiting=limits.max_waiting)
        self.roster.apply(settings.decoders, channel_options(settings), settings.models)

    def drain(self) -> None:
        """Refuse new requests from now on; those that run go on."""
        self.draining = True

    def abort(self) -> None:
        """End every request that runs or waits, each with an error that its client sees."""
        self.drain()
        for mailbox in tuple(self._open):
            mailbox.fail(ShuttingDown("The gateway is being stopped."))

    async def run_call(
        self, chat: ChatRequest, mailbox: Mailbox[Response], request_id: str
    ) -> None:
        """Own one request's backend call from admission to its end; a task of the request's nursery.

        What happens is told through `mailbox` alone. Cancelled, it gives place, lease and gRPC stream back first.
        """
        self._open.add(mailbox)
        try:
            await self._call(chat, mailbox, request_id)
        except ArkError as error:
            mailbox.fail(error)
        except Exception:
            log.exception("request_crashed", request_id=request_id)
            mailbox.fail(InternalError("The gateway failed."))
        finally:
            self._open.discard(mailbox)

    async def _call(self, chat: ChatRequest, mailbox: Mailbox[Response], request_id: str) -> None:
        if self.draining:
            raise ShuttingDown("The gateway is being stopped.")
        async with self.admission.place():
            decoder = self.fleet.choose(chat.model)
            with decoder.lease() as channel:
                request = encode_chat(chat, req_id=uuid.uuid4().hex, model=chat.model)
                await channel.stream(request, mailbox, metadata=(("x-request-id", request_id),))
                if isinstance(mailbox.error, Unreachable):
                    decoder.mark_away()


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """Open the asyncio loop, a channel to each decoder and the tasks that watch them. Yields once each was asked.

    The block must run in a task that lasts as long as the process serves: it owns all of these.
    """
    limits = settings.limits
    async with open_bridge() as bridge, trio.open_nursery() as decoders:
        gateway = Gateway(
            settings=settings,
            roster=Roster(bridge=bridge, nursery=decoders),
            admission=Admission(max_running=limits.max_requests, max_waiting=limits.max_waiting),
            started_at=int(time.time()),
        )
        gateway.apply(settings)
        with trio.move_on_after(FIRST_LOOK_S):
            await gateway.roster.first_look()
        yield gateway
        decoders.cancel_scope.cancel()


def channel_options(settings: Settings) -> ChannelOptions:
    """Return what the settings say of gRPC connections."""
    return ChannelOptions(
        connect_s=settings.limits.connect_s,
        max_message_bytes=settings.limits.max_message_bytes,
        stream_window_bytes=settings.grpc.stream_window_bytes,
        connection_window_bytes=settings.grpc.connection_window_bytes,
        ping_s=settings.grpc.ping_s,
        ping_timeout_s=settings.grpc.ping_timeout_s,
    )
