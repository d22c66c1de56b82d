"""`ark-trio check`: is the configuration sound, and does every decoder and prefiller answer? One line each."""

import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TextIO

import attrs
import orjson
import trio
from attrs import frozen

from ark_trio.access.key_file import open_keyring
from ark_trio.config import Address, LogSettings, Settings, require_runnable
from ark_trio.errors import ArkError, ConfigError, NotImplementedByEngine
from ark_trio.fleet.names import LookupFailed, Resolver, is_name
from ark_trio.hyper.patch import unexpected_versions
from ark_trio.ids import new_id
from ark_trio.log import configure_logging
from ark_trio.protocol.ark_request import encode_chat
from ark_trio.protocol.ark_response import ResponseDecoder
from ark_trio.protocol.chat_request import parse_chat
from ark_trio.rpc.bridge import Bridge, open_bridge
from ark_trio.rpc.channel import ChannelOptions
from ark_trio.rpc.client import ArkChannel, Response, open_channel
from ark_trio.rpc.mailbox import Mailbox
from ark_trio.rpc.options import channel_options
from ark_trio.settings.load import Loaded
from ark_wire.inference import ControlType

_STATUS_LIMIT_S = 5.0
_MAX_AT_ONCE = 16
_MAX_MODELS_SHOWN = 8

Role = Literal["decoder", "prefiller"]


@frozen(kw_only=True)
class Finding:
    """What is known of one thing that was checked."""

    what: str
    where: str
    good: bool
    text: str

    def __str__(self) -> str:
        """The line."""
        return f"{self.what:13} {self.where:21} {'ok ' if self.good else 'BAD'}  {self.text}"


@frozen(kw_only=True)
class Target:
    """One engine to be asked."""

    role: Role
    address: Address
    name: str | None = None
    """By which the settings know it, where that is not its address."""
    missing: str | None = None
    """Why its name led to no address."""


class _Mistaken(Exception):
    """An engine answered, but not as it should."""


def run_check(loaded: Loaded[Settings], *, probe: bool, out: TextIO | None = None) -> int:
    """Check everything and print it; 0 when all is well, else 1."""
    out = out or sys.stdout
    # The lines below say what went wrong; the log would say it again.
    configure_logging(attrs.evolve(loaded.settings, log=LogSettings(level="error")))
    good = True
    for finding in (*_configuration(loaded), *trio.run(ask_engines, loaded.settings, probe)):
        print(finding, file=out)
        good = good and finding.good
    return 0 if good else 1


async def ask_engines(settings: Settings, probe: bool) -> list[Finding]:  # noqa: FBT001 (trio.run passes by position)
    """Ask all engines at once; findings in the settings' order. The nursery ends with the call."""
    targets = [
        *[target for each in settings.decoders for target in await _behind(each, settings)],
        *(Target(role="prefiller", address=each) for each in settings.prefillers),
    ]
    options = channel_options(settings)  # here, where what it raises comes out as it is
    findings: dict[int, list[Finding]] = {}
    limiter = trio.CapacityLimiter(_MAX_AT_ONCE)

    async def ask(number: int, target: Target, bridge: Bridge) -> None:
        async with limiter:
            findings[number] = await _ask(bridge, target, settings, options, probe=probe)

    async with open_bridge() as bridge, trio.open_nursery() as nursery:
        for number, target in enumerate(targets):
            nursery.start_soon(ask, number, target, bridge)
    return [finding for number in range(len(targets)) for finding in findings[number]]


async def _behind(decoder: Address, settings: Settings) -> list[Target]:
    """Return the decoders at an address of the settings: behind a name may be several."""
    if not is_name(decoder):
        return [Target(role="decoder", address=decoder)]
    fleet = settings.fleet
    try:
        found = await Resolver(family=fleet.dns_family, servers=fleet.dns_servers).lookup(
            decoder.host
        )
    except LookupFailed as error:
        return [Target(role="decoder", address=decoder, missing=f"no such name: {error}")]
    return [
        Target(role="decoder", address=Address(host=host, port=decoder.port), name=decoder.host)
        for host in found.addresses
    ]


def _configuration(loaded: Loaded[Settings]) -> Iterator[Finding]:
    settings = loaded.settings
    sources = sorted(set(loaded.sources.values()) - {"default"})
    good, text = True, f"from {', '.join(sources)}" if sources else "defaults"
    try:
        require_runnable(settings, "proxy")
        ring = open_keyring(settings.keys_file)
        text += f"; {len(ring)} API keys" if ring is not None else ""
    except ConfigError as error:
        good, text = False, str(error)
    yield Finding(what="configuration", where=str(settings.bind), good=good, text=text)
    unexpected = unexpected_versions()
    yield Finding(
        what="HTTP server",
        where="hypercorn",
        good=not unexpected,
        text="; ".join(unexpected) or "as tested",
    )
    for name in settings.unknown_variables:
        yield Finding(what="variable", where=name, good=True, text="means nothing here")


async def _ask(
    bridge: Bridge, target: Target, settings: Settings, options: ChannelOptions, *, probe: bool
) -> list[Finding]:
    if target.missing is not None:
        place = str(target.address)
        return [Finding(what=target.role, where=place, good=False, text=target.missing)]
    if target.name is not None:
        options = attrs.evolve(options, server_name=options.server_name or target.name)
    status: Mapping[str, Any] = {}

    async def tell_status(channel: ArkChannel) -> str:
        nonlocal status
        status = await _status(channel)
        return _described(status, target.role)

    async def tell_probe(channel: ArkChannel) -> str:
        names = status.get("models") or settings.models
        return await _probe(channel, str(names[0]))

    where = target.address
    async with open_channel(bridge, where.host, where.port, options) as channel:
        limit_s = settings.limits.connect_s + _STATUS_LIMIT_S
        found = [await _find(target.role, where, tell_status, channel, limit_s)]
        if probe and found[0].good and target.role == "decoder":
            limit_s = settings.limits.first_token_s
            found.append(await _find("probe", where, tell_probe, channel, limit_s))
    return found


async def _find(
    what: str, where: Address, tell: Any, channel: ArkChannel, limit_s: float
) -> Finding:
    """What `tell` says of an engine, or why it can't."""
    good, text = False, f"no answer within {limit_s:g} s"
    with trio.move_on_after(limit_s):
        try:
            good, text = True, await tell(channel)
        except _Mistaken as error:
            good, text = False, str(error)
        except ArkError as error:
            good, text = False, _reason(error)
    return Finding(what=what, where=str(where), good=good, text=text)


async def _status(channel: ArkChannel) -> Mapping[str, Any]:
    try:
        return await channel.control(ControlType.GetStatus)
    except NotImplementedByEngine:
        return {}


def _described(status: Mapping[str, Any], role: Role) -> str:
    if not status:
        return "answers, but knows no GetStatus"
    if status.get("role", role) != role:
        raise _Mistaken(f"is a {status['role']}")
    parts = []
    if models := [str(name) for name in status.get("models") or ()]:
        more = (
            f" and {len(models) - _MAX_MODELS_SHOWN} more"
            if len(models) > _MAX_MODELS_SHOWN
            else ""
        )
        parts.append(", ".join(models[:_MAX_MODELS_SHOWN]) + more)
    if "slots" in status:
        parts.append(f"{status.get('busy', 0)} of {status['slots']} slots busy")
    if "queued" in status:
        parts.append(f"{status['queued']} waiting")
    return " · ".join(parts) or "answers"


async def _probe(channel: ArkChannel, model: str) -> str:
    """Generate one token."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]}
    chat = parse_chat(orjson.dumps(body))
    request = encode_chat(chat, req_id=new_id(), model=model)
    mailbox: Mailbox[Response] = Mailbox()
    began = time.monotonic()
    # Holds the call while its answer is read. Errors come out as values, or the nursery would wrap them.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.stream, request, mailbox)
        outcome = await _read_answer(mailbox)
        nursery.cancel_scope.cancel()
    if isinstance(outcome, ArkError):
        raise outcome
    if outcome is None:
        raise _Mistaken(f"{model}: the answer has no end")
    return f"{model} generated a token in {(outcome - began) * 1000:.0f} ms"


async def _read_answer(mailbox: Mailbox[Response]) -> float | ArkError | None:
    """When the answer's first message came; None if it never said why it ended."""
    decoder, first, finished = ResponseDecoder(), 0.0, False
    try:
        while batch := await mailbox.take():
            first = first or time.monotonic()
            for message in batch:
                finished |= any(choice.finish_reason for choice in decoder.feed(message).choices)
    except ArkError as error:
        return error
    return first if finished else None


def _reason(error: ArkError) -> str:
    """Why, in an operator's words: the system's, where there are any."""
    cause = error.__cause__
    if error.code == "connect_timeout":
        return "not reachable: no connection in time"
    if isinstance(cause, socket.gaierror):
        return f"not reachable: {cause.strerror}"
    if isinstance(cause, ssl.SSLError):
        return f"not reachable: TLS: {getattr(cause, 'verify_message', None) or cause.reason}"
    if isinstance(cause, OSError):  # asyncio words its text itself, with the address in it
        return f"not reachable: {os.strerror(cause.errno) if cause.errno else cause}"
    return error.message
