"""A gRPC client on a bare socket and h2, which does what libraries never would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from ark_wire import ark_pb2

STREAMING_CALL = "/inference.Inference/StreamingCall"


@define(eq=False)
class H2Client:
    socket: trio.SocketStream
    h2: H2Connection
    reads: list[int] = field(factory=list)
    """DATA frames in each read that brought any."""
    data: dict[int, bytes] = field(factory=dict)
    headers: dict[int, dict[str, str]] = field(factory=dict)
    """Initial and trailing metadata by stream."""
    ended: set[int] = field(factory=set)
    settings: dict[int, int] = field(factory=dict)

    async def call(
        self, request: ark_pb2.InferenceRequest, path: str = STREAMING_CALL, **more: Any
    ) -> int:
        body = request.SerializeToString()
        return await self.send(b"\0" + len(body).to_bytes(4, "big") + body, path, **more)

    async def send(
        self, data: bytes, path: str = STREAMING_CALL, *, end: bool = True, **more: str
    ) -> int:
        """Open a stream and send `data` as it stands; the flow-control window must hold it."""
        stream = self.h2.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            **more,
        }
        self.h2.send_headers(stream, list(headers.items()))
        for at in range(0, len(data) or 1, 16384):
            self.h2.send_data(stream, data[at : at + 16384], end_stream=False)
        if end:
            self.h2.end_stream(stream)
        await self.flush()
        return stream

    async def reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, ErrorCodes.CANCEL)
        await self.flush()

    async def flush(self) -> None:
        await self.socket.send_all(self.h2.data_to_send())

    async def read(self, most: int = 1 << 20) -> bool:
        """Take one read; False at the connection's end."""
        received = await self.socket.receive_some(most)
        frames = 0
        for event in self.h2.receive_data(bytes(received)):
            match event:
                case DataReceived():
                    frames += 1
                    assert event.stream_id is not None
                    self.data[event.stream_id] = self.data.get(event.stream_id, b"") + (
                        event.data or b""
                    )
                case ResponseReceived() | TrailersReceived():
                    assert event.stream_id is not None
                    pairs = {_text(key): _text(value) for key, value in event.headers or ()}
                    self.headers.setdefault(event.stream_id, {}).update(pairs)
                case StreamEnded() | StreamReset():
                    assert event.stream_id is not None
                    self.ended.add(event.stream_id)
                case RemoteSettingsChanged():
                    for code, change in event.changed_settings.items():
                        self.settings[code] = change.new_value
        if frames:
            self.reads.append(frames)
        await self.flush()
        return bool(received)

    async def read_until_ended(self, *streams: int) -> None:
        while not self.ended.issuperset(streams) and await self.read():
            pass


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@asynccontextmanager
async def open_h2_client(port: int, *, window_bytes: int = 16 << 20) -> AsyncIterator[H2Client]:
    """Connect; `window_bytes` is what may be sent to a stream that reads nothing more."""
    socket = await trio.open_tcp_stream("127.0.0.1", port)
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    h2.increment_flow_control_window(1 << 28)
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
    async with socket:
        client = H2Client(socket, h2)
        await client.flush()
        while SettingCodes.MAX_CONCURRENT_STREAMS not in client.settings:
            await client.read()
        yield client
