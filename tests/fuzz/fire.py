"""Plays inputs against a gateway, many at a time, judging each answer while a bystander's streams go on."""

import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import trio
from attrs import define, field

from tests.fuzz.judge import KEPT, BadAnswerError, judge
from tests.fuzz.play import Play
from tests.fuzz.target import Target, TargetFailedError
from tests.support.wire import chat, post

AT_ONCE = 16
QUIET_S = 0.06
"""A server that says nothing for so long waits for us."""
READ_S = 0.5
"""The longest that we listen to an answer that goes on."""
TAKEN_S = 5.0
"""The longest that sending may take: a server that takes nothing is given up, as it may."""
CLOSED_S = 15.0
"""Within this a client that has half-closed is let go."""
WATCH_EVERY = 200
GAP_S = 10.0
"""The longest silence that the bystander puts up with; its engine says something every 20 ms."""
_RESET = struct.pack("ii", 1, 0)


class FoundError(Exception):
    """Inputs under which the gateway did wrong."""

    def __init__(self, reason: str, suspects: Sequence[Play]) -> None:
        super().__init__(f"{reason}\nsuspects: {[play.seed for play in suspects]}")
        self.reason = reason
        self.suspects = suspects


@define(eq=False)
class Tally:
    """What happened."""

    played: int = 0
    statuses: Counter[int] = field(factory=Counter)
    by_grammar: Counter[str] = field(factory=Counter)
    """Grammars whose inputs were answered with 200."""
    silent: int = 0
    """Inputs that got no answer: incomplete, or given up by the client."""
    bystander_tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        statuses = ", ".join(
            f"{status}: {number}" for status, number in sorted(self.statuses.items())
        )
        return (
            f"{self.played} inputs in {self.seconds:.1f} s, {self.played / self.seconds:.0f} a second; answers {statuses}; "
            f"without answer {self.silent}; the bystander got {self.bystander_tokens} tokens"
        )


async def fire(target: Target, plays: Sequence[Play]) -> Tally:
    """Play them all.

    Raises:
        FoundError: the gateway did wrong.
    """
    tally = Tally()
    began = time.perf_counter()
    recent: list[Play] = []
    numbers = iter(enumerate(plays))

    async def worker() -> None:
        for number, play in numbers:
            recent.append(play)
            received = await perform(play, target.door.port, number)
            try:
                statuses = judge(play.sent, received)
            except BadAnswerError as error:
                _blame(target, f"{error}\n{play.seed} {error}", [play])
                continue
            tally.played += 1
            tally.statuses.update(statuses)
            tally.by_grammar[play.grammar] += 200 in statuses
            tally.silent += not statuses
            if tally.played % WATCH_EVERY == 0:
                _watch(target, recent)
                del recent[: -2 * AT_ONCE]

    async with bystander(target.door.port, tally), trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)
    await trio.sleep(0.2)
    _watch(target, recent)
    tally.seconds = time.perf_counter() - began
    return tally


def _blame(target: Target, fault: str, suspects: Sequence[Play]) -> None:
    try:
        target.blame(fault)
    except TargetFailedError as error:
        raise FoundError(fault, tuple(suspects)) from error


def _watch(target: Target, recent: Sequence[Play]) -> None:
    try:
        target.watch()
    except TargetFailedError as error:
        raise FoundError(str(error), tuple(recent)) from error


async def perform(play: Play, port: int, number: int = 0) -> bytes:
    """Play one input and return what came back, and `KEPT` if the gateway kept a connection that was half-closed."""
    sock = trio.socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # From many addresses: all of 127/8 is this host, and no limit per address shall hide the rest.
        await sock.bind((f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0))
        await sock.connect(("127.0.0.1", port))
        return await _talk(sock, play)
    except OSError:
        return b""
    finally:
        if play.ending == "reset" and sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()


async def _talk(sock: trio.socket.SocketType, play: Play) -> bytes:
    received = bytearray()
    try:
        with trio.move_on_after(TAKEN_S):
            for piece, pause_s in zip(play.pieces, play.pauses_s, strict=True):
                if pause_s:
                    await trio.sleep(pause_s)
                while piece:
                    piece = piece[await sock.send(piece) :]  # noqa: PLW2901
        with trio.move_on_after(READ_S):
            while await _read(sock, received, QUIET_S):
                pass
        if play.ending == "half-close":
            sock.shutdown(socket.SHUT_WR)
            with trio.move_on_after(CLOSED_S):
                while await _read(sock, received, CLOSED_S):
                    pass
                return bytes(received)
            received += KEPT
    except OSError:
        pass
    return bytes(received)


async def _read(sock: trio.socket.SocketType, received: bytearray, within_s: float) -> bool:
    """Read once; False at the end, and when nothing came."""
    with trio.move_on_after(within_s):
        data = await sock.recv(65536)
        received += data
        return bool(data)
    return False


@asynccontextmanager
async def bystander(port: int, tally: Tally) -> AsyncIterator[None]:
    """Hold a stream open while the block runs, one after the other, each read to its end.

    Raises:
        FoundError: it was cut off, fell silent, or did not say what the engine said.
    """
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stand_by, port, tally, over)
        yield
        over.set()
        nursery.cancel_scope.deadline = trio.current_time() + GAP_S


async def _stand_by(port: int, tally: Tally, over: trio.Event) -> None:
    while not over.is_set():
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(post(chat("count=200 gap_s=0.02")))
            data = b""
            while not data.endswith(b"0\r\n\r\n") and not over.is_set():
                with trio.move_on_after(GAP_S) as gap:
                    more = await stream.receive_some(65536)
                    data += more
                    tally.bystander_tokens += more.count(b'"content":"')
                if gap.cancelled_caught or not more:
                    raise FoundError(f"the bystander was left alone after {data[-300:]!r}", [])
            for number in count() if not over.is_set() else ():
                if number == 200:
                    break
                if b'"content":"%d' % number not in data:
                    raise FoundError(f"the bystander missed token {number}", [])
