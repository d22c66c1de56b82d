"""What all API families share: asking an engine, in the request's nursery or its own task, and answering as a stream or in one piece."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TypeVar, cast

import structlog
import trio
from attrs import evolve

from ark_trio.api.access import is_batch, require_model
from ark_trio.api.exchange import Exchange
from ark_trio.api.passed_on import bond_of, trace_of
from ark_trio.api.replies import Headers, Reply, json_reply
from ark_trio.errors import DeadlineExceeded
from ark_trio.protocol.ark_message import Message
from ark_trio.protocol.reading import Reading, ReasoningMark
from ark_trio.protocol.several import Numbered
from ark_trio.protocol.tool_text import MARKED, Syntax
from ark_trio.relay.answer import stream_answer
from ark_trio.relay.ask import Ask, Encode
from ark_trio.relay.several import open_parts
from ark_trio.relay.steps import Decoder, Steps, StreamEncoder
from ark_trio.relay.whole import Whole
from ark_trio.rpc.client import Response as ArkResponse
from ark_trio.rpc.mailbox import Mailbox

log = structlog.get_logger()

M = TypeVar("M")

STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
ANY_MODEL = "*"


def note_request(
    here: Exchange,
    model: str,
    unknown: Sequence[str] = (),
    *,
    stream: bool = False,
    names: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Write down what a request asks; fields that nobody knows are told once, at debug. `names`: see `callers_names`."""
    record = here.record
    record.model, record.stream = model, stream
    here.names = names
    if unknown:
        log.debug("fields_unknown", request_id=record.request_id, fields=list(unknown))


def ask_for(  # noqa: PLR0913 (each is a fact of its own)
    here: Exchange,
    model: str,
    encode: Encode,
    *,
    unary: bool = False,
    batch: bool = False,
    key: bytes | None = None,
    prompt_tokens: int = 0,
    max_tokens: int | None = None,
) -> Ask:
    """Return the call to make for the request at hand, with its id and its place in a trace. `key`: see `protocol/prefix`.

    Raises:
        PermissionDenied: the request's key is not for this model.
    """
    require_model(here, model)
    return Ask(
        batch=batch or is_batch(here),
        model=model,
        unary=unary,
        encode=encode,
        record=here.record,
        trace=trace_of(here.headers),
        aside=here.gateway.aside if here.large else None,
        key=bond_of(here.headers, here.gateway.settings.fleet, key, here.record.key),
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
    )


def reading_for(here: Exchange, model: str, wanted: Reading) -> Reading:
    """Return `wanted` with what the settings say of how `model` writes."""
    text = here.gateway.settings.text
    reasoning = cast(ReasoningMark, _rule(text.reasoning, model))
    syntaxes: tuple[Syntax, ...] = ()
    if wanted.tool_names:  # without tools nothing is a call, whatever it looks like
        syntax = _rule(text.tools, model)
        syntaxes = (
            MARKED if syntax == "auto" else () if syntax == "off" else (cast(Syntax, syntax),)
        )
    if (reasoning, syntaxes) == (wanted.reasoning, wanted.syntaxes):
        return wanted  # as nearly always
    return evolve(wanted, reasoning=reasoning, syntaxes=syntaxes)


def _rule(rules: tuple[str, ...], model: str) -> str:
    known = _known(rules)
    return known.get(model) or known.get(ANY_MODEL) or "auto"


@lru_cache(maxsize=8)
def _known(rules: tuple[str, ...]) -> Mapping[str, str]:
    return {name: word for name, _, word in (rule.rpartition("=") for rule in rules)}


async def open_steps(here: Exchange, ask: Ask, decoder: Decoder[Message]) -> Steps[Message]:
    """Start a call in the request's nursery, and return what it brings.

    Raises:
        RateLimited: the request's key has asked enough.
    """
    await _claim(here, (ask,))
    mailbox: Mailbox[Message] = Mailbox()
    here.start(here.gateway.run_call, ask, mailbox)
    return Steps(mailbox, decoder, here.gateway.settings.limits, here.record)


async def take_reply(here: Exchange, ask: Ask) -> ArkResponse:
    """Make a unary call in the request's nursery, and return its answer.

    Raises:
        ArkError: it failed, or took longer than a first token may.
    """
    await _claim(here, (ask,))
    mailbox: Mailbox[ArkResponse] = Mailbox()
    here.start(here.gateway.run_call, ask, mailbox)
    try:
        with trio.fail_after(here.gateway.settings.limits.first_token_s):
            (reply,) = await mailbox.take()
    except trio.TooSlowError as error:
        text = "The engine did not answer in time."
        raise DeadlineExceeded(text, code="first_token_timeout") from error
    return reply


async def open_several_steps(
    here: Exchange, asks: Sequence[Ask], decoder: Decoder[Numbered]
) -> Steps[Numbered]:
    """Start several calls in the request's nursery, and return what they bring, numbered.

    Raises:
        RateLimited: the request's key has asked enough.
    """
    await _claim(here, asks)
    mailbox: Mailbox[Numbered] = Mailbox()
    for ask, part in zip(asks, open_parts(len(asks), mailbox), strict=True):
        here.start(here.gateway.run_call, ask, part)
    return Steps(mailbox, decoder, here.gateway.settings.limits, here.record)


async def _claim(here: Exchange, asks: Sequence[Ask]) -> None:
    if here.key is None:
        return
    await here.tab.claim(
        here.key,
        prompt_tokens=sum(ask.prompt_tokens for ask in asks),
        answer_tokens=sum(ask.most_answer_tokens for ask in asks),
    )


async def reply_with_stream(here: Exchange, steps: Steps[M], answer: StreamEncoder) -> Reply:
    """Begin a stream once the engine has said something, so that an early failure still gets its status."""
    keep_alive_s = here.gateway.settings.limits.keep_alive_s
    first = await steps.take(keep_alive_s)
    begin = None if first is None else b"".join(map(answer.feed, first))
    body = stream_answer(begin, steps, answer, here.record, keep_alive_s, here.outlet)
    return Reply(200, [*STREAM_HEADERS], cast(AsyncGenerator[bytes, None], body))


async def reply_with_whole(here: Exchange, ask: Ask, answer: Whole[Message]) -> Reply:
    """Make a call in the request's own task, and answer in one piece.

    Raises:
        ArkError: it failed; `RateLimited`: the request's key has asked enough.
    """
    await _claim(here, (ask,))
    return json_reply(await answer.run(partial(here.gateway.run_call, ask, answer)))


async def reply_with_several(here: Exchange, asks: Sequence[Ask], answer: Whole[Numbered]) -> Reply:
    """As `reply_with_whole`, by several calls."""
    await _claim(here, asks)
    parts = open_parts(len(asks), answer)
    runs = [partial(here.gateway.run_call, *each) for each in zip(asks, parts, strict=True)]
    return json_reply(await answer.run(partial(_run_all, runs)))


async def _run_all(runs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make calls, all at once; where there is one, as nearly always, in this task."""
    if len(runs) == 1:
        await runs[0]()
        return
    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(run)
