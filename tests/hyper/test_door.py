"""How many connections there may be, and who makes room when there are no more places."""

import pytest
import trio

from ark_trio.config import Limits
from ark_trio.hyper.budget import Budget
from ark_trio.hyper.door import Door
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.stack import RawClient, Stack, open_stack
from tests.support.wire import chat, post

GET = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"


async def streaming(stack: Stack) -> RawClient:
    client = await stack.connect()
    await client.send(post(chat("hi", model=MODEL)))
    await client.read_until(b'"content":"a"')
    return client


async def ask(client: RawClient) -> int | None:
    """Ask for little; the status."""
    await client.send(GET)
    with trio.fail_after(2):
        await client.read_until(b"\r\n\r\n")
    return client.status


async def closed(client: RawClient) -> bool:
    with trio.move_on_after(0.1) as waiting:
        await client.read_to_end()
    return not waiting.cancelled_caught


async def test_a_connection_over_the_limit_is_told_so_and_closed(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_connections=3))) as stack:
            inside = [await streaming(stack) for _ in range(3)]
            late = await stack.connect()
            await late.read_to_end()
            assert late.status == 503
            assert b"retry-after: 1" in late.received
            assert late.error is not None
            assert late.error["message"] == "There are too many connections."
            await late.stream.aclose()
            await inside.pop().stream.aclose()
            await trio.sleep(0.01)
            again = await stack.connect()
            assert await ask(again) == 200
            assert stack.server.config.door.turned_away == 1
            for client in (*inside, again):
                await client.stream.aclose()
            await stack.assert_as_before()
            assert stack.server.config.door.inside == 0


@pytest.mark.parametrize("sent", [b"", b"GET /li", GET], ids=["nothing", "half-a-head", "between"])
async def test_who_is_idle_longest_makes_room(sent: bytes, autojump_clock: trio.testing.MockClock):
    """Slowloris by number: connections that send nothing, or half a head, keep nobody out."""
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_connections=4))) as stack:
            busy = await streaming(stack)
            idle = [await stack.connect() for _ in range(3)]
            for client in idle:
                if sent:
                    await client.send(sent)
                await trio.sleep(0.01)
            late = await stack.connect()
            assert await ask(late) == 200
            assert [await closed(client) for client in (*idle, busy)] == [True, False, False, False]
            assert stack.server.config.door.shed == 1
            for client in (*idle, busy, late):
                await client.stream.aclose()
            await stack.assert_as_before()


async def test_one_address_has_its_share(autojump_clock: trio.testing.MockClock):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        limits = Limits(max_connections_per_address=2)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            inside = [await streaming(stack) for _ in range(2)]
            late = await stack.connect()
            await late.read_to_end()
            assert late.status == 429
            other = await connect_from("127.0.0.2", stack)
            assert await ask(other) == 200
            for client in (*inside, late, other):
                await client.stream.aclose()
            await stack.assert_as_before()
            assert not stack.server.config.door._by_address


async def connect_from(address: str, stack: Stack) -> RawClient:
    sock = trio.socket.socket()
    await sock.bind((address, 0))
    await sock.connect(("127.0.0.1", stack.port))
    return RawClient(trio.SocketStream(sock))


async def test_a_flood_of_connections_is_told_in_a_line_of_the_log(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_connections=1))) as stack:
            inside = await streaming(stack)
            late = [await stack.connect() for _ in range(200)]
            for client in late:
                await client.read_to_end()
                await client.stream.aclose()
            assert [each["event"] for each in stack.log].count("connection_refused") == 1
            assert stack.server.config.door.turned_away == 200
            await inside.stream.aclose()
            await stack.assert_as_before()


class Guest:
    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_clients_on_a_unix_socket_have_no_address_to_be_counted_by():
    door = Door(Limits(max_connections_per_address=1))
    assert all(door.enter(Guest(), None) is None for _ in range(5))


def test_no_connection_takes_the_last_descriptor(monkeypatch):
    monkeypatch.setattr("ark_trio.hyper.door.descriptor_limit", lambda: 150)
    door = Door(Limits(max_connections=1000))
    guests = [Guest() for _ in range(30)]
    for guest in guests:
        assert door.enter(guest, None) is None
    assert door.inside == door.places == 22
    assert [guest.dropped for guest in guests] == [True] * 8 + [False] * 22
    for guest in guests:
        door.leave(guest)
        door.leave(guest)
    assert (door.inside, door.entered, door.shed) == (0, 30, 8)


def test_a_connection_that_left_becomes_idle_no_more():
    door = Door(Limits())
    guest = Guest()
    door.enter(guest, "a")
    door.leave(guest)
    door.note(guest, idle=True)
    assert not door._idle


def test_a_budget_fills_again_up_to_its_burst():
    now = [0.0]
    budget = Budget(10, lambda: now[0])
    assert [budget.spend() for _ in range(51)] == [True] * 50 + [False]
    now[0] = 1.0
    assert [budget.spend() for _ in range(10)] == [True] * 9 + [False]
    now[0] = 1000.0
    assert [budget.spend() for _ in range(51)] == [True] * 50 + [False]
