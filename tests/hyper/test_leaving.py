"""Clients whose last bytes and whose end arrive together."""

import socket

import pytest
import trio
from h2.settings import SettingCodes

from tests.support.fake_engine import MODEL, open_fake_decoder, saying
from tests.support.h2_front import connect
from tests.support.stack import open_stack
from tests.support.wire import chat, post

REQUESTS = {
    "get": b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
    "head": b"HEAD /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
    "post": post(chat("hi", model=MODEL)),
}


@pytest.mark.parametrize("request_", list(REQUESTS))
async def test_nothing_is_kept_of_clients_that_ask_and_leave_at_once(
    request_: str, autojump_clock: trio.testing.MockClock
):
    """An answer that is done after the client was found gone began the idle time-out, which held the connection for 75 s."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            clients = [await stack.connect() for _ in range(40)]
            for client in clients:
                client.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for client in clients:
                await client.stream.socket.send(REQUESTS[request_])
                client.stream.socket.shutdown(socket.SHUT_WR)
            with trio.fail_after(2):
                for client in clients:
                    await client.read_to_end()
            for client in clients:
                await client.stream.aclose()
            await stack.assert_as_before(0.1)


async def test_nothing_is_kept_of_an_http2_client_that_leaves_behind_a_closed_window(
    autojump_clock: trio.testing.MockClock,
):
    """Its answer is whole and waits for a window of 20 bytes, which nobody can open any more."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                front.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20})
                for stream in (False, True):
                    number = await front.ask(stream=stream)
                    front.stalled.add(number)
                    await front.until(number, b"{")
                await trio.sleep(0.1)
                await front.stream.aclose()
            await stack.assert_as_before(0.1)


async def test_nothing_is_kept_of_a_request_whose_chunks_are_malformed(
    autojump_clock: trio.testing.MockClock,
):
    """Its connection is closed for it, and it must hear of that: it would wait for the rest of its body for a minute."""
    head = b"POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            client = await stack.connect()
            await client.send(head + b"5\r\n12345XX")
            with trio.fail_after(2):
                await client.read_to_end()
            assert client.status == 400
            await client.stream.aclose()
            await stack.assert_as_before(0.1)
