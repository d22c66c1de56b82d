"""The client of llama.cpp's server, against a server that answers what a test wants, on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest
import trio
from attrs import define, field

from ark_trio.engine.llama import sse_lines
from ark_trio.engine.llama.client import LlamaClient, open_client
from ark_trio.engine.llama.native import Native
from ark_trio.engine.llama.sse_lines import SseLines
from ark_trio.errors import ArkError, InternalError, InvalidRequest, PrefillerFailed


@define(eq=False)
class FakeServer:
    """Answers every request with `status` and `answer`. As llama.cpp does, it promises to keep a connection and closes it."""

    status: int = 200
    answer: bytes = b"{}"
    requests: list[bytes] = field(factory=list)
    """Head and body of each, in order."""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = await _read_request(stream)
            if request:
                self.requests.append(request)
                head = f"HTTP/1.1 {self.status} x\r\ncontent-length: {len(self.answer)}\r\n\r\n"
                await stream.send_all(head.encode() + self.answer)
                # Another request may come before the end is noticed; nobody reads it any more.
                await stream.receive_some(1)


async def _read_request(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := await stream.receive_some(65536)):
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if b"content-length" in line
    ]
    while sizes and len(body) < sizes[0]:
        body += await stream.receive_some(65536)
    return head + b"\r\n\r\n" + body


@asynccontextmanager
async def client_of(server: FakeServer) -> AsyncIterator[LlamaClient]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])  # noqa: ASYNC113 (it listens already)
        port = listener.socket.getsockname()[1]
        native = Native(
            url=f"http://127.0.0.1:{port}", key="k", model_sha256="", build="", kv_type=""
        )
        with trio.fail_after(10):
            async with open_client(native, patience_s=5) as client:
                yield client
        nursery.cancel_scope.cancel()


async def ignore(chunk: dict[str, Any]) -> bool:
    await trio.lowlevel.checkpoint()
    return True


async def keep(chunks: list[Any], chunk: dict[str, Any]) -> bool:
    await trio.lowlevel.checkpoint()
    chunks.append(chunk)
    return True


async def test_no_request_is_sent_on_a_connection_that_may_be_closing():
    server = FakeServer(answer=b'data: {"a": 1}\n\ndata: [DONE]\n\n')
    chunks: list[Any] = []
    async with client_of(server) as client:
        for _ in range(3):
            await client.stream("/completion", {}, partial(keep, chunks))
        server.answer = orjson.dumps({"tokens": [1]})
        for _ in range(3):
            assert await client.tokenize("x", special=False) == [1]
    assert chunks == [{"a": 1}] * 3
    assert len(server.requests) == 6
    assert all(b"connection: close" in request.lower() for request in server.requests)


def test_only_a_line_feed_ends_a_line():
    text = "a\u0085b\u2028c\u2029d\r\v\f\x1c\x1d\x1e"
    wire = (f'data: {{"a": "{text}"}}\n\ndata: 2\n'.encode()) + b"data: "
    for size in range(1, len(wire)):
        lines = SseLines()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        said = [line for piece in pieces for line in lines.feed(piece)]
        assert said == [f'data: {{"a": "{text}"}}'.encode(), b"", b"data: 2"]


def test_a_line_without_end_is_an_error_not_a_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse_lines, "MAX_LINE_BYTES", 10)
    lines = SseLines()
    assert list(lines.feed(b"0123456789\n0123456789")) == [b"0123456789"]
    with pytest.raises(InternalError):
        list(lines.feed(b"0"))


async def test_an_answer_may_contain_any_end_of_line_but_llama_cpps_own():
    text = "\u0085\u2028\u2029"
    server = FakeServer(answer=f'data: {{"a": "{text}"}}\n\ndata: [DONE]\n\n'.encode())
    chunks: list[Any] = []
    async with client_of(server) as client:
        await client.stream("/completion", {}, partial(keep, chunks))
    assert chunks == [{"a": text}]


REFUSED = orjson.dumps(
    {"error": {"code": 400, "message": "Unable to do /tmp/x: [json.exception.1] no"}}
)


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda client: client.apply_template({}), InvalidRequest),
        (lambda client: client.tokenize("x", special=True), InvalidRequest),
        (lambda client: client.stream("/completion", {}, ignore), InvalidRequest),
        (lambda client: client.properties(), InternalError),
        (lambda client: client.vocabulary(), InternalError),
        (lambda client: client.detokenize([1]), InternalError),
        (lambda client: client.evaluate(0, [1]), InternalError),
        (lambda client: client.save(0, "x.kv"), InternalError),
        (lambda client: client.at_rest(0), InternalError),
        (lambda client: client.restore(0, "x.kv"), PrefillerFailed),
    ],
)
async def test_a_refusal_of_what_no_user_asked_for_blames_no_user(ask: Any, kind: type[ArkError]):
    async with client_of(FakeServer(status=400, answer=REFUSED)) as client:
        with pytest.raises(ArkError) as raised:
            await ask(client)
    assert type(raised.value) is kind
    assert (raised.value.message == "Unable to do /tmp/x: no") == (kind is InvalidRequest)
