"""Trio in a thread behind an asyncio server: cancellation crosses both ways, and nothing is left on either side."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from ark_trio.rpc.asyncio_host import AsyncioHost, in_trio, leave_asyncio_plain

Scenario = Callable[["Server"], Awaitable[None]]


class Server:
    """As much of an asyncio ASGI server as the host can see."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self.host = AsyncioHost(app)
        self.to_lifespan: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.started = asyncio.Event()

    async def live(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message["type"])
            self.started.set()

        await self.host.serve({"type": "lifespan"}, self.to_lifespan.get, send)

    async def request(self, receive: Any, send: Any) -> None:
        await self.host.serve({"type": "http"}, receive, send)


def run_plain(scenario: Scenario, handle: Callable[[Any, Any], Awaitable[None]]) -> Server:
    """Run `scenario` in a plain asyncio loop in its own thread; `handle` serves HTTP in Trio."""

    async def main() -> Server:
        server = Server(application(handle))
        async with asyncio.timeout(10):
            lifespan = asyncio.create_task(server.live())
            await server.to_lifespan.put({"type": "lifespan.startup"})
            await server.started.wait()
            await scenario(server)
            await server.to_lifespan.put({"type": "lifespan.shutdown"})
            await lifespan
            assert asyncio.all_tasks() == {asyncio.current_task()}
        return server

    result: list[Any] = []

    def thread() -> None:
        leave_asyncio_plain()
        try:
            result.append(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001, ASYNC103 (raised again in the test's thread)
            result.append(error)

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join(20)
    if isinstance(result[0], BaseException):
        raise result[0]
    assert not any(t.name == "ark-trio" for t in threading.enumerate())
    server: Server = result[0]
    return server


def application(handle: Callable[[Any, Any], Awaitable[None]]) -> Any:
    """An ASGI application, Trio-flavoured."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert in_trio()
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await handle(receive, send)

    return app


async def never() -> Any:
    await asyncio.sleep(3600)


async def swallow(_message: Any) -> None:
    await asyncio.sleep(0)


def test_events_cross_both_ways_and_the_end_is_told_last():
    sent = []

    async def handle(receive: Any, send: Any) -> None:
        await send({"echo": await receive()})

    async def scenario(server: Server) -> None:
        async def receive() -> Any:
            await asyncio.sleep(0)
            return "hello"

        async def send(message: Any) -> None:
            sent.append(message)

        await server.request(receive, send)

    server = run_plain(scenario, handle)
    assert sent == [{"echo": "hello"}]
    assert server.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_server_that_cancels_waits_until_trio_has_cleaned_up():
    seen = []

    async def handle(receive: Any, send: Any) -> None:
        seen.append("begun")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.sleep(0.05)
            seen.append("cleaned up")

    async def scenario(server: Server) -> None:
        task = asyncio.create_task(server.request(never, swallow))
        while not seen:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["begun", "cleaned up"]

    run_plain(scenario, handle)


def test_a_wait_that_trio_gives_up_is_given_up_in_asyncio():
    ended: list[str] = []

    async def handle(receive: Any, send: Any) -> None:
        with trio.move_on_after(0.05):
            await receive()

    async def scenario(server: Server) -> None:
        begun = asyncio.Event()

        async def receive() -> Any:
            begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("given up")

        await server.request(receive, swallow)
        await asyncio.sleep(0.05)
        assert begun.is_set()
        assert ended == ["given up"]

    run_plain(scenario, handle)


def test_a_crash_in_trio_reaches_the_server_and_harms_no_other_request():
    async def handle(receive: Any, send: Any) -> None:
        if await receive() == "crash":
            raise ZeroDivisionError
        await send("fine")

    async def scenario(server: Server) -> None:
        async def crash() -> Any:
            return "crash"

        async def other() -> Any:
            return "other"

        with pytest.raises(ZeroDivisionError):
            await server.request(crash, swallow)
        await server.request(other, swallow)

    run_plain(scenario, handle)


def test_asyncio_makes_its_own_loops_once_the_application_is_imported():
    kinds = []

    def thread() -> None:
        leave_asyncio_plain()
        loop = asyncio.new_event_loop()
        kinds.append(type(loop).__module__)
        loop.close()

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join(5)
    assert kinds == ["asyncio.unix_events"]
