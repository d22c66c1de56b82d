"""What is done with large bodies, so that nobody else waits for it."""

import threading

import trio

from ark_trio.api import chat as chat_module
from ark_trio.config import Limits
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.chat_request import parse_chat
from tests.support.fake_engine import MODEL, hang, open_fake_decoder, saying
from tests.support.stack import open_stack
from tests.support.wire import chat, post


async def test_a_body_of_too_many_values_is_refused_before_it_is_parsed():
    body = chat("hi", model=MODEL, stop=["x"] * 2000)
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=Limits(max_json_values=1024))) as stack:
            client = await stack.connect()
            await client.send(post(body, headers="connection: close\r\n"))
            await client.read_to_end()
            assert client.status == 400
            assert b"The body holds more than 1024 values." in bytes(client.received)
            await client.stream.aclose()


async def test_a_large_body_is_parsed_and_spelled_beside_the_event_loop(monkeypatch):
    seen: dict[str, set[bool]] = {"parse": set(), "spell": set()}

    def note(what: str, real):
        def noted(*args, **more):
            seen[what].add(threading.current_thread() is threading.main_thread())
            return real(*args, **more)

        return noted

    monkeypatch.setattr(chat_module, "parse_chat", note("parse", parse_chat))
    monkeypatch.setattr(chat_module, "encode_chat", note("spell", encode_chat))
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            for size, here in ((10, True), (200_000, False)):
                client = await stack.connect()
                body = chat("x" * size, model=MODEL)
                await client.send(post(body, headers="connection: close\r\n"))
                with trio.fail_after(10):
                    await client.read_to_end()
                assert bytes(client.received).count(b"[DONE]") == 1
                await client.stream.aclose()
                assert seen == {"parse": {here}, "spell": {here}}
                seen["parse"].clear()
                seen["spell"].clear()


async def test_nobody_waits_for_a_thread_whose_work_is_for_nothing(monkeypatch):
    work, begun = threading.Event(), threading.Event()

    def spell_slowly(*args, **more):
        begun.set()
        work.wait(10)
        return encode_chat(*args, **more)

    monkeypatch.setattr(chat_module, "encode_chat", spell_slowly)
    try:
        async with open_fake_decoder(saying("a")) as decoder:
            async with open_stack(decoder.settings()) as stack:
                client = await stack.connect()
                body = chat("x" * 200_000, model=MODEL, stream=False)
                await client.send(post(body, headers="connection: close\r\n"))
                with trio.fail_after(5):
                    while not begun.is_set():
                        await trio.sleep(0.01)
                    stack.gateway.abort()
                    await client.read_to_end()
                assert client.status == 503
                await client.stream.aclose()
    finally:
        work.set()


async def test_bodies_together_have_a_bound(autojump_clock: trio.testing.MockClock):
    """Two fit; the third is told so, the first two go on, and room is given back when answers begin or clients leave."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n"
    limits = Limits(max_bodies_bytes=130_000)
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings(limits=limits)) as stack:
            first, second, third = [await stack.connect() for _ in range(3)]
            for client in (first, second):
                await client.send(head + b" " * 59_000)
            await trio.sleep(0.1)
            assert stack.gateway.bodies.held == 118_000
            await third.send(head + b" " * 60_000)
            with trio.fail_after(5):
                await third.read_until(b"bodies_limit")
            assert third.status == 503
            assert stack.gateway.bodies.held == 118_000
            await first.stream.aclose()
            await trio.sleep(0.1)
            assert stack.gateway.bodies.held == 59_000
            body = chat("hi", model=MODEL)
            await second.send(b" " * (1000 - len(body)) + body)
            with trio.fail_after(5):
                await second.read_until(b"[DONE]")
            assert stack.gateway.bodies.held == 0
            for client in (second, third):
                await client.stream.aclose()


async def test_what_finds_no_place_is_refused_before_it_is_parsed(monkeypatch):
    """Large bodies are parsed one after another: refusals behind them would take seconds."""

    def never(*_: object) -> None:
        raise AssertionError("it was parsed")

    async with open_fake_decoder(hang) as decoder:
        limits = Limits(max_requests=1, max_waiting=0)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            running = await stack.connect()
            await running.send(post(chat("hi", model=MODEL)))
            with trio.fail_after(5):
                while not decoder.engine.calls:
                    await trio.sleep(0.001)
            monkeypatch.setattr(chat_module, "parse_chat", never)
            for size in (10, 200_000):
                client = await stack.connect()
                await client.send(
                    post(chat("x" * size, model=MODEL), headers="connection: close\r\n")
                )
                with trio.fail_after(5):
                    await client.read_to_end()
                assert client.status == 429
                assert b"retry-after: " in bytes(client.received).lower()
                await client.stream.aclose()
            await running.stream.aclose()
