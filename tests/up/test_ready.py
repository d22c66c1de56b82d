from pathlib import Path

import pytest
import trio

from ark_trio.config import Bind
from ark_trio.up import ready as ready_module
from ark_trio.up.plan import Service
from ark_trio.up.ready import answers_ready, reachable, wait_ready


def service(name):
    return Service(name=name, command=[], bind=Bind(host="127.0.0.1", port=1), port_flag="--x")


async def test_readiness_is_shown_as_it_comes_and_asked_no_more(autojump_clock):
    asked = {"a": 0, "b": 0}

    def probe(name, after):
        async def ask(_bind):
            await trio.lowlevel.checkpoint()
            asked[name] += 1
            return trio.current_time() - began >= after

        return ask

    began, shown = trio.current_time(), []
    probes = {"a": probe("a", 0.05), "b": probe("b", 5)}
    with trio.fail_after(60):
        await wait_ready(
            [service("a"), service("b")], probes, lambda ready: shown.append(sorted(ready))
        )
    assert [shown[0], shown[1], shown[-1]] == [[], ["a"], ["a", "b"]]
    assert asked["a"] == 2
    assert asked["b"] > 40


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 \r\n\r\n", False),
        (b"", False),
        (b"garbage", False),
    ],
)
@pytest.mark.parametrize("unix", [False, True])
async def test_a_gateway_is_ready_when_it_says_so(tmp_path, nursery, answer, ready, unix):
    asked = []

    async def serve(stream):
        async with stream:
            asked.append(bytes(await stream.receive_some()))
            await stream.send_all(answer)

    if unix:
        bind = Bind(path=tmp_path / "http.sock")
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(str(bind.path))
        listening.listen()
        listeners = [trio.SocketListener(listening)]
    else:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        bind = Bind(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
    await nursery.start(trio.serve_listeners, serve, listeners)
    with trio.fail_after(5):
        assert await answers_ready(bind) is ready
    assert asked[0].startswith(b"GET /readyz HTTP/1.1\r\n")
    nursery.cancel_scope.cancel()


async def test_a_gateway_that_accepts_and_is_silent_is_not_ready(monkeypatch):
    monkeypatch.setattr(ready_module, "_ANSWER_LIMIT_S", 0.1)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(5):
        assert not await answers_ready(
            Bind(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
        )
    await listeners[0].aclose()


async def test_nobody_there_is_not_ready():
    assert not await answers_ready(Bind(path=Path("/nowhere.sock")))


@pytest.mark.parametrize(
    ("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_a_listener_on_every_address_is_called_on_loopback(host, called):
    assert reachable(Bind(host=host, port=1)).host == called
