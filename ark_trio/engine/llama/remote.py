"""Getting a prompt's KV state from one of the configured prefillers.

No one else is ever listened to: the bytes are fed to native code.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import trio
from attrs import evolve, frozen

from ark_trio.config import Settings
from ark_trio.engine.llama.choosing import Prefiller, in_order
from ark_trio.engine.llama.kv import (
    CHUNK_BYTES,
    CHUNK_KEY,
    HEADER_KEY,
    Origin,
    StateHeader,
    StateWriter,
    parse_header,
)
from ark_trio.engine.llama.wish import Wish, encode_wish
from ark_trio.errors import (
    ArkError,
    BadBackend,
    DeadlineExceeded,
    Overloaded,
    PrefillerFailed,
    Unavailable,
)
from ark_trio.protocol.value import from_value
from ark_trio.rpc.bridge import Bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.options import channel_options
from ark_wire import ark_pb2

log = structlog.get_logger()

Response = ark_pb2.InferenceResponse

_MESSAGES_WAITING = 4
_BESIDE_A_CHUNK = 64 << 10


@frozen(kw_only=True)
class Transfer:
    """A state that has arrived."""

    header: StateHeader
    seconds: float
    """From the request to the last byte, prefill included."""


@frozen(kw_only=True)
class Prefillers:
    """The configured prefillers. Made by `open_prefillers`."""

    known: Sequence[Prefiller]
    origin: Origin
    threads: trio.CapacityLimiter

    async def fetch(self, wish: Wish, path: Path) -> Transfer:
        """Have a prefiller compute a prompt, and write the state to `path`.

        One that can't be reached, fails, is lost on the way, or is full, is replaced by the next.

        Raises:
            ArkError: none could. `PrefillerFailed` when one sent what is of no use, else `Overloaded` when those that
                are there are full, else `Unavailable`.
        """
        full: Overloaded | None = None
        failed: PrefillerFailed | None = None
        for prefiller in in_order(self.known, wish):
            try:
                with prefiller.asked(wish):
                    return await self._fetch_from(prefiller.channel, wish, path)
            except Unavailable as lost:
                prefiller.note_failure()
                log.warning("prefiller_unavailable", reason=lost.message)
            except PrefillerFailed as error:
                prefiller.note_failure()
                log.warning("prefiller_failed", reason=error.message)
                failed = error
            except Overloaded as error:
                log.info("prefiller_full")
                full = error
        raise failed or full or Unavailable("No prefiller is available now.")

    async def _fetch_from(self, channel: ArkChannel, wish: Wish, path: Path) -> Transfer:
        mailbox = Mailbox[Response](_MESSAGES_WAITING)
        began = time.monotonic()
        outcome: StateHeader | ArkError | None = None
        # Holds the call's task: reading it and running it are two tasks, as in the gateway.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.stream, encode_wish(wish), mailbox)
            try:
                outcome = await self._receive(mailbox, len(wish.tokens), path)
            except ArkError as error:
                outcome = error
            nursery.cancel_scope.cancel()
        if isinstance(outcome, ArkError):
            raise _seen_from_here(outcome)
        return Transfer(header=outcome, seconds=time.monotonic() - began)

    async def _receive(self, mailbox: Mailbox[Response], tokens: int, path: Path) -> StateHeader:
        messages = await mailbox.take()
        if not messages:
            raise BadBackend("The prefiller answered nothing.")
        header = parse_header(from_value(messages.pop(0).outputs[HEADER_KEY]), self.origin, tokens)
        with path.open("wb") as file:
            writer = StateWriter(file, header)
            while True:
                for message in messages:
                    chunk = message.outputs[CHUNK_KEY].bytes_
                    await trio.to_thread.run_sync(writer.feed, chunk, limiter=self.threads)
                messages = await mailbox.take()
                if not messages:
                    break
            writer.end()
        return header


def _seen_from_here(error: ArkError) -> ArkError:
    """Return what a prefiller's failure is to the decoder's own caller, who asked no prefiller for anything."""
    match error:
        case Unavailable() | Overloaded() | DeadlineExceeded():
            return error
        case PrefillerFailed() | ArkError(code="context_length_exceeded"):
            return error
        case BadBackend():  # what it sent was of no use; the words are ours
            return PrefillerFailed(error.message)
    log.warning("prefiller_refused", outcome=error.outcome, reason=error.message)
    return PrefillerFailed("The prefiller failed.")


@asynccontextmanager
async def open_prefillers(
    bridge: Bridge, settings: Settings, origin: Origin, threads: trio.CapacityLimiter
) -> AsyncIterator[Prefillers]:
    """Open channels to the configured prefillers; nothing connects before the first use."""
    options = evolve(
        channel_options(settings),
        max_message_bytes=CHUNK_BYTES + _BESIDE_A_CHUNK,
        stream_window_bytes=4 * CHUNK_BYTES,
    )
    async with AsyncExitStack() as stack:
        known = [
            Prefiller(
                channel=await stack.enter_async_context(
                    open_channel(bridge, address.host, address.port, options)
                ),
                known=deque(maxlen=settings.engine.slots),
            )
            for address in settings.prefillers
        ]
        yield Prefillers(known=known, origin=origin, threads=threads)
