"""What a decoder makes of its prefillers' answers and failures; the prefillers are scripted."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ark_trio.config import Settings
from ark_trio.engine.llama.kv import Origin
from ark_trio.engine.llama.remote import Prefillers, open_prefillers
from ark_trio.engine.llama.wish import Wish, read_wish
from ark_trio.errors import (
    ArkError,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    Overloaded,
    PrefillerFailed,
    Unavailable,
    UnknownModel,
)
from ark_trio.protocol.value import fill_value
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.outbox import Outbox
from ark_trio.rpc.server import open_server
from ark_trio.settings.address import Address
from ark_wire import ark_pb2
from tests.support.fake_engine import Call, FakeEngine, Script, failing, hang

ORIGIN = Origin(model="m", build="b", kv_type="k")
TOKENS = [1, 2, 3]
WISH = Wish(req_id="r", tokens=TOKENS)
STATE = b"state" * 100
SECRET = "/etc/secret at host 10.0.0.1"


async def compute(call: Call, outbox: Outbox) -> None:
    """Answer as an honest prefiller does."""
    header = {
        "model": "m",
        "build": "b",
        "kv_type": "k",
        "tokens": len(call.inputs["tokens"]),
        "bytes": len(STATE),
        "sha256": hashlib.sha256(STATE).hexdigest(),
    }
    for key, value in (("prefill.header", header), ("prefill.chunk", STATE)):
        response = ark_pb2.InferenceResponse()
        fill_value(response.outputs[key], value)
        await outbox.put(response)


@asynccontextmanager
async def prefillers(*scripts: Script) -> AsyncIterator[Prefillers]:
    async with open_bridge() as bridge, AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(open_server(bridge, FakeEngine(script), "127.0.0.1", 0))
            for script in scripts
        ]
        addresses = tuple(Address(host="127.0.0.1", port=server.port) for server in servers)
        settings = Settings(prefillers=addresses)
        with trio.fail_after(10):
            async with open_prefillers(bridge, settings, ORIGIN, trio.CapacityLimiter(1)) as opened:
                yield opened


async def failure(path: Path, *scripts: Script) -> ArkError:
    async with prefillers(*scripts) as opened:
        with pytest.raises(ArkError) as raised:
            await opened.fetch(WISH, path)
    return raised.value


async def test_a_state_arrives_whole(tmp_path: Path):
    async with prefillers(compute) as opened:
        transfer = await opened.fetch(WISH, tmp_path / "state")
    assert transfer.header.tokens == len(TOKENS)
    assert (tmp_path / "state").read_bytes() == STATE


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest(SECRET, param="tokens"),
        NotFound(SECRET),
        UnknownModel(SECRET, param="model"),
        Conflict(SECRET),
        NotImplementedByEngine(SECRET),
        InternalError(SECRET),
        RuntimeError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_prefillers_refusal_is_a_fault_behind_the_decoder_in_our_own_words(
    error: Exception, tmp_path: Path
):
    told = await failure(tmp_path / "state", failing(error))
    assert type(told) is PrefillerFailed
    assert told.message == "The prefiller failed."
    assert told.param is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [(DeadlineExceeded(SECRET), DeadlineExceeded), (Overloaded(SECRET), Overloaded)],
)
async def test_a_late_or_full_prefiller_stays_what_it_is(
    error: ArkError, kind: type[ArkError], tmp_path: Path
):
    told = await failure(tmp_path / "state", failing(error))
    assert type(told) is kind
    assert "secret" not in told.message


async def test_a_prompt_beyond_the_prefillers_context_is_told_with_its_numbers(tmp_path: Path):
    text = "This model's context is 2 tokens, but the prompt has 3."
    error = InvalidRequest(text, param="messages", code="context_length_exceeded")
    told = await failure(tmp_path / "state", failing(error))
    assert isinstance(told, InvalidRequest)
    assert (told.message, told.param, told.code) == (text, "messages", "context_length_exceeded")


async def test_a_state_of_no_use_is_the_prefillers_fault(tmp_path: Path):
    async def lie(call: Call, outbox: Outbox) -> None:
        call.request.inputs["tokens"].int64_list.values.append(4)
        await compute(call, outbox)

    told = await failure(tmp_path / "state", lie)
    assert isinstance(told, PrefillerFailed)
    assert told.message == "The prefiller's state does not fit: tokens differ."


@pytest.mark.parametrize("error", [Overloaded("full"), Unavailable("away")])
async def test_a_full_or_absent_prefiller_is_passed_over(error: ArkError, tmp_path: Path):
    # Whichever is asked first; at random, so often.
    async with prefillers(failing(error), compute, failing(error)) as opened:
        for _ in range(10):
            transfer = await opened.fetch(WISH, tmp_path / "state")
            assert transfer.header.tokens == len(TOKENS)


async def test_where_all_are_full_or_away_the_full_ones_are_told_of(tmp_path: Path):
    for scripts in ([Overloaded("full"), Unavailable("away")], [Unavailable("away")] * 2):
        told = await failure(tmp_path / "state", *map(failing, scripts))
        assert type(told) is type(scripts[0])


async def test_a_fetch_given_up_ends_the_prefillers_call(tmp_path: Path):
    calls: list[Call] = []

    async def remember(call: Call, outbox: Outbox) -> None:
        calls.append(call)
        await hang(call, outbox)

    async with prefillers(remember) as opened:
        async with trio.open_nursery() as nursery:
            begin: Any = (opened.fetch, WISH, tmp_path / "state")
            nursery.start_soon(*begin)
            while not calls:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        await calls[0].ended.wait()
    assert calls[0].how == "cancelled"


async def break_off(call: Call, outbox: Outbox) -> None:
    """Say what is to come and a part of it, and be gone."""

    class Half:
        """An outbox that passes on the first bytes of a state."""

        async def put(self, message: ark_pb2.InferenceResponse) -> None:
            if "prefill.chunk" in message.outputs:
                message.outputs["prefill.chunk"].bytes_ = STATE[:50]
            await outbox.put(message)

    half: Any = Half()
    await compute(call, half)
    raise Unavailable("gone")


async def spoil(call: Call, outbox: Outbox) -> None:
    """Send a state that is not the one announced."""
    response = ark_pb2.InferenceResponse()
    fill_value(response.outputs["prefill.header"], {"model": "other"})
    await outbox.put(response)


@pytest.mark.parametrize("failing_one", [break_off, spoil])
async def test_one_that_fails_in_mid_transfer_is_replaced_and_the_state_is_whole(
    failing_one: Script, tmp_path: Path
):
    path = tmp_path / "state"
    async with prefillers(failing_one, compute) as opened:
        for _ in range(6):
            for prefiller in opened.known:
                prefiller._failed_at = float("-inf")
                prefiller.known.clear()  # or the good one is asked first
            await opened.fetch(WISH, path)
            assert path.read_bytes() == STATE
        assert all(prefiller.pending == 0 for prefiller in opened.known)


async def test_the_wish_arrives_as_it_was(tmp_path: Path):
    seen: list[dict[str, Any]] = []

    async def remember(call: Call, outbox: Outbox) -> None:
        seen.append(call.inputs)
        await compute(call, outbox)

    async with prefillers(remember) as opened:
        await opened.fetch(WISH, tmp_path / "state")
        await opened.fetch(
            Wish(req_id="r", tokens=TOKENS, exact=True, salt="s"), tmp_path / "state"
        )
    assert seen == [{"tokens": TOKENS}, {"tokens": TOKENS, "exact": True, "cache_salt": "s"}]
    told = read_wish("r", seen[1], vocabulary=10)
    assert told == Wish(req_id="r", tokens=TOKENS, exact=True, salt="s")


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ({"tokens": [1], "exact": 1}, "exact"),
        ({"tokens": [1], "cache_salt": 5}, "cache_salt"),
        ({"tokens": [11]}, "tokens"),
        ({}, "tokens"),
    ],
)
def test_a_malformed_wish_is_refused(inputs: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as raised:
        read_wish("r", inputs, vocabulary=10)
    assert raised.value.param == param
