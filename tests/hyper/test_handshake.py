"""Clients that open a TLS connection and then do not, or not in time, begin TLS."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ark_trio.config import HttpSettings, Limits
from tests.support.certificates import Authority
from tests.support.fake_engine import open_fake_decoder, saying
from tests.support.stack import Stack, open_stack

HELLO = b"\x16\x03\x01\x02\x00\x01"
"""The beginning of a client's first message."""


@asynccontextmanager
async def open_tls_stack(folder: Path, limits: Limits) -> AsyncIterator[Stack]:
    http = HttpSettings(tls_cert=Authority(folder).issue("door", "127.0.0.1"))
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(http=http, limits=limits)) as stack:
            yield stack


async def test_a_handshake_has_the_time_of_a_head(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    async with open_tls_stack(tmp_path, Limits(head_s=4)) as stack:
        silent, slow = await stack.connect(), await stack.connect()
        await slow.send(HELLO)
        began = trio.current_time()
        await silent.read_to_end()
        await slow.read_to_end()
        assert 3.9 < trio.current_time() - began < 4.5
        await silent.stream.aclose()
        await slow.stream.aclose()
        await stack.assert_as_before()


async def test_a_handshake_that_is_not_through_holds_up_no_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    async with open_tls_stack(tmp_path, Limits(head_s=40)) as stack:
        silent, slow = await stack.connect(), await stack.connect()
        await slow.send(HELLO)
        await trio.sleep(1)
        await stack.signals.send(signal.SIGTERM)
        with trio.fail_after(1):
            await stack.stopped.wait()
        await silent.stream.aclose()
        await slow.stream.aclose()


async def test_handshakes_that_do_not_end_make_room_for_others(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
):
    async with open_tls_stack(tmp_path, Limits(head_s=40, max_connections=2)) as stack:
        clients = [await stack.connect() for _ in range(5)]
        with trio.fail_after(1):
            for client in clients[:3]:
                await client.read_to_end()
        for client in clients:
            await client.stream.aclose()
        await stack.assert_as_before()
        assert "connection_crashed" not in [each["event"] for each in stack.log]
