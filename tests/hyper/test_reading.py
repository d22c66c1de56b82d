"""A connection's reading ends in the very turn in which something else happens."""

import socket
from typing import Any

import pytest
import trio
import trio.testing

from ark_trio.config import Settings
from ark_trio.hyper.config import hyper_config
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.idle import EndingContext
from ark_trio.hyper.patch import mend_protocols

ROUNDS = 30
"""Which of two tasks of one turn comes first is Trio's choice."""
STRANGERS = b"GET /stranger HTTP/1.1\r\nhost: x\r\n\r\n"
NOT_PLAIN = b"GET /%d HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, x\r\n\r\n"


def connection_of(app: Any, server_end: socket.socket) -> Connection:
    """Return a connection that serves `app`."""
    mend_protocols()
    server_end.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(server_end))
    return Connection(app, hyper_config(Settings()), EndingContext(), {}, stream)


async def test_a_connection_that_is_dropped_reads_nothing_of_whoever_gets_its_descriptor():
    """The door drops an idle one as its client speaks, and the next client is given the number of its socket."""
    heard: list[str] = []

    async def app(scope: Any, *_rest: Any) -> None:
        heard.append(scope["path"])

    for _ in range(ROUNDS):
        (client, server_end), (bell, heard_bell) = socket.socketpair(), socket.socketpair()
        number = server_end.fileno()
        connection = connection_of(app, server_end)
        rest: list[bytes] = []

        async def drop(
            heard_bell: socket.socket = heard_bell,
            number: int = number,
            connection: Connection = connection,
            rest: list[bytes] = rest,
        ) -> None:
            await trio.lowlevel.wait_readable(heard_bell)
            connection.drop()
            pair = socket.socketpair()
            next_, stranger = sorted(pair, key=lambda end: end.fileno() != number)
            assert next_.fileno() == number
            stranger.send(STRANGERS)
            next_.setblocking(False)
            await trio.testing.wait_all_tasks_blocked()
            rest.append(next_.recv(1000))
            next_.close()
            stranger.close()

        with client, bell, heard_bell:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drop)
                nursery.start_soon(connection.run)
                await trio.testing.wait_all_tasks_blocked()
                client.send(b"GE")
                bell.send(b".")
            assert rest == [STRANGERS]
    assert not heard


async def test_a_request_that_begins_as_its_client_is_found_gone_is_told_so():
    """It was waiting behind another, in h11's buffer, and that one's answer is done in the turn in which the client's end is read."""
    for turns in range(5):
        for _ in range(ROUNDS):
            client, server_end = socket.socketpair()
            answer = trio.Event()
            running: list[str] = []

            async def app(
                scope: Any,
                receive: Any,
                send: Any,
                *_: Any,
                answer: trio.Event = answer,
                running: list[str] = running,
            ) -> None:
                if scope["path"] == "/1":
                    await answer.wait()
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body"})
                    return
                running.append(scope["path"])
                while (await receive())["type"] != "http.disconnect":
                    pass
                running.clear()

            with client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection_of(app, server_end).run)
                    client.send(NOT_PLAIN % 1 + NOT_PLAIN % 2)
                    await trio.testing.wait_all_tasks_blocked()
                    answer.set()
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    client.close()
                    await trio.testing.wait_all_tasks_blocked()
                    assert not running
                    nursery.cancel_scope.cancel()


async def test_who_has_sent_before_it_is_served_is_read_at_once(monkeypatch: pytest.MonkeyPatch):
    """Its socket is waited for once only, for what comes behind the request."""

    async def app(_scope: Any, _receive: Any, send: Any, *_rest: Any) -> None:
        head = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 204, "headers": head})
        await send({"type": "http.response.body", "body": b""})

    waits: list[int] = []
    wait = trio.lowlevel.wait_readable

    async def count(sock: Any) -> None:
        waits.append(sock)
        await wait(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", count)
    client, server_end = socket.socketpair()
    with client:
        client.send(STRANGERS)
        await connection_of(app, server_end)
        assert client.recv(1000).startswith(b"HTTP/1.1 204")
    assert len(waits) == 1
