"""Workers that count as one: what each may take, when one dies, and when the parent does not answer."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from ark_trio.access.desk import ANSWER_S, Desk, RemoteStore
from ark_trio.access.quota import Quota
from ark_trio.errors import Unavailable

ONE_AT_ONCE = Quota(concurrent_requests=1)
MANY = Quota(requests_per_minute=6000, tokens_per_minute=1000, concurrent_requests=50)


async def attend(desk: Desk, number: int, sock: trio.socket.SocketType) -> None:
    """Be the parent, for one worker."""
    with sock:
        while message := await sock.recv(4096):
            if reply := desk.answer(number, message):
                await sock.send(reply)
    desk.forget(number)


def pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return ours, theirs


@asynccontextmanager
async def workers(
    count: int,
) -> AsyncIterator[tuple[Desk, list[RemoteStore], list[trio.CancelScope]]]:
    desk, stores, deaths = Desk(clock=trio.current_time), [], []

    async def live(
        store: RemoteStore, sock: trio.socket.SocketType, death: trio.CancelScope
    ) -> None:
        with death, sock:
            await store.listen()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            ours, theirs = pair()
            nursery.start_soon(attend, desk, number, ours)
            stores.append(RemoteStore(theirs))
            deaths.append(trio.CancelScope())
            nursery.start_soon(live, stores[-1], theirs, deaths[-1])
        yield desk, stores, deaths
        nursery.cancel_scope.cancel()


async def test_what_one_worker_takes_another_has_not():
    async with workers(2) as (_, (one, two), _):
        ticket, verdict = await one.claim("ann", ONE_AT_ONCE, 0)
        assert verdict.refused is None
        assert (await two.claim("ann", ONE_AT_ONCE, 0))[1].refused == "concurrent"
        await one.settle(ticket, 0)
        assert (await two.claim("ann", ONE_AT_ONCE, 0))[1].refused is None


async def test_rates_are_told_as_they_stand_for_all():
    async with workers(2) as (_, (one, two), _):
        ticket, _ = await one.claim("ann", MANY, 300)
        _, verdict = await two.claim("ann", MANY, 100)
        assert verdict.tokens is not None
        assert verdict.tokens.remaining == 600
        await one.settle(ticket, 0)
        _, verdict = await two.claim("ann", MANY, 0)
        assert verdict.tokens is not None
        assert verdict.tokens.remaining >= 900
        assert verdict.requests is not None
        assert verdict.requests.limit == 6000


async def test_many_claims_at_once_each_get_their_answer():
    async with workers(3) as (desk, stores, _):
        granted: list[tuple[RemoteStore, int]] = []

        async def claim(store: RemoteStore) -> None:
            ticket, verdict = await store.claim("ann", MANY, 1)
            if verdict.refused is None:
                granted.append((store, ticket))

        async with trio.open_nursery() as nursery:
            for number in range(900):
                nursery.start_soon(claim, stores[number % 3])
        assert len(granted) == 50
        for store, ticket in granted:
            await store.settle(ticket, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not desk.ledger.open_tickets()
        assert not any(store._waiting or store._answers for store in stores)


async def test_a_worker_that_dies_leaves_nothing_taken():
    async with workers(2) as (desk, (one, two), (death, _)):
        await one.claim("ann", ONE_AT_ONCE, 0)
        death.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not desk.ledger.open_tickets()
        assert (await two.claim("ann", ONE_AT_ONCE, 0))[1].refused is None


async def test_a_claim_that_is_given_up_gives_back_what_it_took(
    autojump_clock: trio.testing.MockClock,
):
    ours, theirs = pair()
    desk, store = Desk(clock=trio.current_time), RemoteStore(theirs)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.listen)
            with trio.move_on_after(0.5) as left:  # the parent hears it, and answers too late
                await store.claim("ann", ONE_AT_ONCE, 0)
            assert left.cancelled_caught
            nursery.start_soon(attend, desk, 1, ours)
            await trio.testing.wait_all_tasks_blocked()
            assert not desk.ledger.open_tickets()
            assert (await store.claim("ann", ONE_AT_ONCE, 0))[1].refused is None
            nursery.cancel_scope.cancel()


async def test_a_parent_that_does_not_answer_refuses_within_a_bound(
    autojump_clock: trio.testing.MockClock,
):
    ours, theirs = pair()
    with ours, theirs:
        began = trio.current_time()
        with pytest.raises(Unavailable):
            await RemoteStore(theirs).claim("ann", ONE_AT_ONCE, 0)
        assert trio.current_time() - began == pytest.approx(ANSWER_S)


async def test_a_parent_that_is_gone_refuses_at_once_and_hinders_no_end():
    ours, theirs = pair()
    with theirs:
        ours.close()
        store = RemoteStore(theirs)
        await store.listen()
        with pytest.raises(Unavailable):
            await store.claim("ann", ONE_AT_ONCE, 0)
        await store.settle(1, 5)
