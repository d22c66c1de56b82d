"""Requests that go past h11 are answered as by it: byte for byte, whatever the application does and however they are cut."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from ark_trio.config import Limits, Settings
from ark_trio.hyper.config import hyper_config
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.idle import EndingContext
from ark_trio.hyper.patch import mend_protocols
from ark_trio.hyper.plain import PlainHead, read_head
from tests.support.stack import RawClient

GET = b"GET /a%20b?c=1 HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\nhello"
EMPTY = b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
CHUNKED = (
    b"POST /p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
HEAD = b"HEAD /h HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
BAD = b"GET /bad HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n"
REQUESTS = (GET, POST, EMPTY, CHUNKED, HEAD, LAST, BAD)

START = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}
SIZED = {**START, "headers": [(b"content-length", b"4")]}
NONE = {**START, "status": 204}
LEAVING = {**START, "headers": [(b"connection", b"close")]}
TRAP = {**START, "headers": [(b"x-a", b"1\r\nx-b: 2")]}
PIECE = {"type": "http.response.body", "body": b"ab", "more_body": True}
SILENCE = {**PIECE, "body": b""}
END = {"type": "http.response.body", "body": b"cd", "more_body": False}
BARE_END = {"type": "http.response.body"}
CRASH = {"type": "crash"}
SCRIPTS: dict[str, tuple[dict[str, Any], ...]] = {
    "whole": (SIZED, PIECE, END),
    "chunked": (START, PIECE, SILENCE, PIECE, END),
    "chunked-bare-end": (START, PIECE, BARE_END),
    "no-body": (START, BARE_END),
    "no-content": (NONE, BARE_END),
    "no-content-with-a-body": (NONE, PIECE, END),
    "leaving": (LEAVING, END),
    "trap": (TRAP, END),
    "too-long": (SIZED, PIECE, PIECE, END),
    "too-short": (SIZED, BARE_END),
    "nothing": (),
    "head-only": (START,),
    "half": (START, PIECE),
    "crash": (CRASH,),
    "crash-behind-the-head": (START, CRASH),
    "crash-in-the-body": (START, PIECE, CRASH),
    "twice": (START, END, START),
    "body-first": (END, START),
    "behind-the-end": (START, END, PIECE),
}


@define
class App:
    """Says what a script wants, and notes what it is told."""

    scripts: Sequence[tuple[dict[str, Any], ...]]
    reads: bool = True
    heard: list[Any] = field(factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any, *_threads: Any) -> None:
        number = len([one for one in self.heard if one[0] == "scope"])
        told = {key: value for key, value in scope.items() if key not in ("state", "client", "server")}  # fmt: skip
        self.heard.append(("scope", told))
        body, more = b"", self.reads
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if message["type"] == "http.disconnect":
                self.heard.append((number, "left", body))
        self.heard.append((number, body))
        for message in self.scripts[number % len(self.scripts)]:
            await trio.lowlevel.checkpoint()
            if message is CRASH:
                raise ValueError
            try:
                await send({**message})  # one is emptied once it is out
            except Exception as error:
                self.heard.append((number, type(error).__name__ != ""))
                raise
        if self.scripts[number % len(self.scripts)]:
            self.heard.append((number, (await receive())["type"]))


def by_h11(_data: bytes, _limits: Limits) -> PlainHead | None:
    return None


@asynccontextmanager
async def connected(app: App, limits: Limits) -> AsyncIterator[RawClient]:
    """Yield a client of a connection that serves `app`."""
    mend_protocols()
    ours, theirs = trio.socket.socketpair()
    config = hyper_config(Settings(limits=limits))
    connection = Connection(app, config, EndingContext(), {}, trio.SocketStream(theirs))
    client = RawClient(trio.SocketStream(ours))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield client
        await client.stream.aclose()


async def talk(app: App, pieces: Sequence[bytes], limits: Limits, *, stays: bool) -> bytes:
    """Send the pieces, each when the one before has been dealt with, and return what comes back."""
    async with connected(app, limits) as client:
        async with trio.open_nursery() as reading:
            reading.start_soon(client.read_to_end)
            for piece in pieces:
                try:
                    await client.send(piece)
                except trio.BrokenResourceError:
                    break
                await trio.testing.wait_all_tasks_blocked()
            if stays:
                await trio.sleep(limits.idle_s + 5)
            reading.cancel_scope.cancel()
    return re.sub(rb"(date|x-request-id): [^\r]*", b"", bytes(client.received))


def both_ways(
    scripts: Sequence[tuple[dict[str, Any], ...]],
    pieces: Sequence[bytes],
    *,
    limits: Limits | None = None,
    reads: bool = True,
) -> tuple[App, bytes]:
    """Talk past h11 and by it; both come to the same, which is returned."""

    async def run(app: App) -> bytes:
        return await talk(app, pieces, limits or Limits(idle_s=7), stays=True)

    with pytest.MonkeyPatch.context() as patch:
        results = []
        for way in (read_head, by_h11):
            patch.setattr("ark_trio.hyper.lane.read_head", way)
            app = App(scripts, reads)
            clock = trio.testing.MockClock(autojump_threshold=0)
            results.append((app, trio.run(run, app, clock=clock)))
    (ours, answer), (theirs, expected) = results
    assert answer == expected
    assert ours.heard == theirs.heard
    return ours, answer


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
def test_an_answer_is_the_same_past_h11(request_: bytes, script: tuple[dict[str, Any], ...]):
    both_ways([script, SCRIPTS["whole"]], [request_, GET])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4),
    st.lists(st.sampled_from(tuple(SCRIPTS.values())), min_size=1, max_size=4),
    st.lists(st.integers(0, 300), max_size=5),
    st.booleans(),
)
def test_requests_are_answered_alike_however_they_are_cut(
    requests: list[bytes],
    scripts: list[tuple[dict[str, Any], ...]],
    cuts: list[int],
    reads: bool,
):
    sent = b"".join(requests)
    ends = sorted({0, len(sent), *(cut % len(sent) for cut in cuts)})
    pieces = [sent[begin:end] for begin, end in pairwise(ends)]
    both_ways(scripts, pieces, reads=reads)


def test_plain_requests_go_past_h11_and_others_between_them_do_not():
    read: list[bool] = []

    def spy(data: bytes, limits: Limits) -> PlainHead | None:
        head = read_head(data, limits)
        read.append(head is not None)
        return head

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ark_trio.hyper.lane.read_head", spy)
        app = App([SCRIPTS["whole"]])
        run = partial(talk, app, [GET, CHUNKED, POST], Limits(idle_s=7), stays=True)
        answer = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert answer.count(b"200") == 3
    # The chunked one is looked at where it is read, and where it is handed over.
    assert read == [True, False, False, True]


def test_a_connection_takes_no_more_requests_than_are_allowed_of_both_ways_together():
    limits = Limits(idle_s=7, max_connection_requests=3)
    for requests in ([GET] * 5, [GET, CHUNKED, GET, CHUNKED], [CHUNKED, GET, GET, GET]):
        _, answer = both_ways([SCRIPTS["whole"]], requests, limits=limits)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("script", [SCRIPTS["nothing"], SCRIPTS["leaving"]], ids=["crash", "close"])
def test_nothing_behind_an_answer_that_ends_the_connection_is_begun(
    script: tuple[dict[str, Any], ...],
):
    """Whether the reading task or the one that hands over has its turn first is a matter of chance."""
    for requests in ([GET + GET], [GET + CHUNKED], [GET, GET], [GET + GET[:9], GET[9:]]):
        for _ in range(20):
            app, _ = both_ways([script], requests)
            assert len([one for one in app.heard if one[0] == "scope"]) == 1


def test_an_answer_before_the_body_is_there_ends_the_connection():
    request = POST.replace(b": 5", b": 50")
    _, answer = both_ways([SCRIPTS["whole"]], [request, b"x" * 45, GET], reads=False)
    assert answer.count(b"HTTP/1.1 200") == 1


def test_a_body_that_comes_in_pieces_is_handed_over_as_it_comes():
    app, _ = both_ways([SCRIPTS["whole"]], [POST[:-5], b"he", b"l", b"lo" + GET, GET])
    assert [one for one in app.heard if one[1] == b"hello"] == [(0, b"hello")]


async def test_a_client_that_leaves_is_told_to_the_application(
    autojump_clock: trio.testing.MockClock,
):
    for sent in (GET, POST, POST[:-1]):
        heard: list[Any] = []

        async def app(_scope: Any, receive: Any, *_rest: Any, heard: list[Any] = heard) -> None:
            while not heard or heard[-1] != "http.disconnect":
                heard.append((await receive())["type"])

        async with connected(app, Limits()) as client:  # type: ignore[arg-type]
            await client.send(sent)
            await trio.testing.wait_all_tasks_blocked()
            assert heard == ["http.request"]
        assert heard == ["http.request", "http.disconnect"]


async def test_what_an_application_does_not_take_is_not_read_without_end(
    autojump_clock: trio.testing.MockClock,
):
    """Of a body that nobody takes, ten reads wait, and what else may wait behind a request."""

    over = trio.Event()

    async def app(*_: Any) -> None:
        await over.wait()

    limits = Limits(max_body_bytes=64 << 20, max_pipelined_bytes=1 << 16)
    async with connected(app, limits) as client:  # type: ignore[arg-type]
        with trio.move_on_after(60):
            await client.send(POST.replace(b": 5", b": 50000000")[:-5])
            for _ in range(1000):
                await client.send(b"x" * 50_000)
            raise AssertionError("all of it was read")
        over.set()


@pytest.mark.parametrize("way", ["max_requests", "h11_pass_raw_headers"])
async def test_what_hypercorn_is_asked_to_do_beside_keeps_requests_on_its_own_way(
    way: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
):
    """It counts requests, after which a worker ends, and passes headers on as they were spelled."""
    monkeypatch.setattr(f"hypercorn.config.Config.{way}", 1)
    app = App([SCRIPTS["whole"]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ark_trio.hyper.lane.read_head", None)
        answer = await talk(app, [POST], Limits(idle_s=7), stays=True)
    assert answer.count(b"HTTP/1.1 200") == 1
    names = [name for name, _ in app.heard[0][1]["headers"]]
    assert (b"Host" in names) == (way == "h11_pass_raw_headers")
