"""A connection to an engine without sockets or loops: what comes is handed to it, what it writes is kept."""

from typing import Any, cast

from attrs import define, field
from grpclib.client import Handler
from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.settings import SettingCodes
from hyperframe.frame import SettingsFrame

from ark_trio.rpc.call import Call
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.connection import ClientProtocol
from ark_trio.rpc.head import spell_head
from ark_trio.rpc.mailbox import Kept

WINDOW_BYTES = 1 << 16


class Taken(Kept[bytes]):
    """A sink that keeps all."""

    def feed(self, message: bytes, size: int = 0) -> bool:
        self.messages.append(message)
        return True


@define
class Transport:
    """Keeps what is written."""

    written: bytes = b""
    writes: int = 0
    closing: bool = False

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes += 1

    def close(self) -> None:
        self.closing = True

    abort = close


@define
class _Channel:
    """What a call asks of its channel."""

    options: ChannelOptions = field(
        factory=lambda: ChannelOptions(stream_window_bytes=WINDOW_BYTES)
    )
    _scheme: str = "http"
    _authority: str = "engine"


@define(eq=False)
class Side:
    """A connection without a socket, and the calls on it; `short`: what is known of header blocks is used."""

    short: bool
    strict: bool = False
    """h2 checks fields, which it does not for grpclib's clients."""
    transport: Transport = field(factory=Transport)
    calls: dict[int, Call[bytes]] = field(factory=dict)
    faults: list[str] = field(factory=list)
    protocol: ClientProtocol = field(init=False)

    def __attrs_post_init__(self) -> None:
        config = Configuration(
            http2_stream_window_size=WINDOW_BYTES,
            http2_connection_window_size=2 * WINDOW_BYTES,
            _keepalive_time=None,
        )
        self.protocol = ClientProtocol(
            Handler(),
            config.__for_client__(),
            _h2_config(strict=self.strict),
            gather_s=lambda: 0.0,
            on_lost=lambda _protocol: None,
            on_released=lambda: None,
        )
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]
        self.take(SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize())

    def call(self) -> Call[bytes]:
        """Return a call that has not begun."""
        return Call(cast(Any, _Channel()), self.protocol, Taken(), bytes)

    def open(self) -> None:
        """Begin a call as its owner does, whose part is played here."""
        if self.protocol.lost:
            return
        call = self.call()
        self.protocol.h2.open_stream(call.id, spell_head("http", "h", "/x", []))
        self.protocol.h2.send_piece(call.id, b"ask", last=call.id % 4 == 1)
        self.protocol.hold(call.id, call)  # type: ignore[arg-type]
        self.protocol.connection.flush()
        self.calls[call.id] = call

    def give_up(self, number: int) -> None:
        """End a call from this side, or forget it when it has ended."""
        if number in self.protocol.processor.streams and not self.protocol.lost:
            self.calls[number]._give_up()
            self.protocol.release(number)

    def shrink(self, size: int) -> None:
        """Ask the engine for a table of headers of so many bytes at most."""
        if not self.protocol.lost:
            self.protocol.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            self.protocol.connection.flush()

    def take(self, data: bytes) -> None:
        """Hand one read over."""
        if not self.short:
            self.protocol.h2.take_known = lambda *_, **__: None  # type: ignore[method-assign]
        try:
            self.protocol.data_received(data)
        except ValueError as error:  # what is no ASCII; `_read` leaves the engine
            self.faults.append(repr(error))
            self.protocol.processor.close()
        for call in self.calls.values():
            if call.headers is not None and call.buffer.full and not call.buffer._error:
                call.buffer.resume()

    def state(self) -> dict[str, Any]:
        """All that there is to compare."""
        h2 = self.protocol.h2
        return {
            "said": self.transport.written,
            "ended": (self.protocol.lost, self.protocol.going_away, self.transport.closing),
            "faults": self.faults,
            "connection": (h2.state_machine.state, h2.outbound_flow_control_window),
            "window": vars(h2._inbound_flow_control_window_manager),
            "table": (h2.decoder.header_table_size, [*h2.decoder.header_table.dynamic_entries]),
            "streams": {number: _vars(stream) for number, stream in h2.streams.items()},
            "closed": dict(h2._closed_streams),
            "inlets": set(self.protocol._inlets),
            "rest": (self.protocol._rest, bytes(h2.incoming_buffer._data)),
            "succeeded": self.protocol.connection.streams_succeeded,
            "calls": {
                number: (
                    _fields(call.headers),
                    _fields(call.trailers),
                    call.buffer.ended,
                    repr(call.buffer._error),
                    repr(call._broken),
                    call._sink.messages,  # type: ignore[attr-defined]
                )
                for number, call in self.calls.items()
            },
        }


def _h2_config(*, strict: bool) -> H2Configuration:
    """As grpclib's channel has it, unless strict."""
    return H2Configuration(
        client_side=True,
        header_encoding="ascii",
        validate_inbound_headers=strict,
        normalize_inbound_headers=strict,
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )


def _vars(stream: Any) -> dict[str, Any]:
    fields = vars(stream) | vars(stream.state_machine) | vars(stream._inbound_window_manager)
    return {k: v for k, v in fields.items() if type(v).__module__.split(".")[0] in {"builtins"}}


def _fields(headers: Any) -> Any:
    return headers and [(type(one), *one) for one in headers]
