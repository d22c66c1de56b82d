"""Prefill and decode in two processes, on the real model: the split is real, and every failure of it is told."""

import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ark_trio.errors import (
    InvalidRequest,
    NotImplementedByEngine,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from ark_trio.protocol.value import from_value
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_wire.inference import ControlType
from tests.support.llama import CONTEXT, SLOTS, ask, chat, method, seconds_until_free, status
from tests.support.processes import Served, engine, free_port

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]

LONG = "Tell me about " + " ".join(f"town number {number}," for number in range(90))
"""About 600 tokens."""
FLAGS = ("--slots", str(SLOTS), "--context-tokens", str(CONTEXT), "--threads", "1")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kv")


def start(role: str, run_dir: Path, *flags: str, port: int | None = None) -> Any:
    return engine(role, *FLAGS, "--run-dir", str(run_dir), *flags, port=port, driver="llama")


@pytest.fixture(scope="module")
def prefiller(run_dir: Path) -> Iterator[Served]:
    with start("prefiller", run_dir) as served:
        yield served


@pytest.fixture(scope="module")
def decoder(run_dir: Path, prefiller: Served) -> Iterator[Served]:
    flags = ("--prefillers", f"127.0.0.1:{prefiller.port}", "--engine-max-waiting", "2")
    with start("decoder", run_dir, *flags) as served:
        yield served


@pytest.fixture(scope="module")
def single(run_dir: Path) -> Iterator[Served]:
    """A decoder that prefills itself."""
    with start("decoder", run_dir) as served:
        yield served


@asynccontextmanager
async def calling(*processes: Served) -> AsyncIterator[list[ArkChannel]]:
    async with open_bridge() as bridge, AsyncExitStack() as stack:
        opened = [open_channel(bridge, "127.0.0.1", process.port) for process in processes]
        yield [await stack.enter_async_context(channel) for channel in opened]


async def test_the_decoder_evaluates_one_prompt_token_and_the_prefiller_the_rest(
    decoder: Served, prefiller: Served
):
    async with calling(decoder, prefiller) as (decode, prefill):
        before = await status(prefill)
        answer = await ask(decode, chat("Name three colours, please.", max_new_tokens=8))
        prompt = answer.usage.prompt_tokens
        assert prompt > 30
        [timings] = answer.timings
        assert timings["prompt_evaluated"] <= 1
        assert (await status(decode))["last_prompt_evaluated"] <= 1
        computed = (await status(prefill))["prompt_tokens_evaluated"] - before[
            "prompt_tokens_evaluated"
        ]
        assert (
            computed == timings["prefill_evaluated"] == prompt - (answer.usage.cached_tokens or 0)
        )
        assert timings["kv_bytes"] > prompt * 20_000


async def test_split_greedy_output_equals_a_single_process_run(run_dir: Path):
    # Alone and from empty caches: llama.cpp's sums depend on how a prompt is cut into batches.
    with start("prefiller", run_dir) as prefiller, start("decoder", run_dir) as single:
        flags = ("--prefillers", f"127.0.0.1:{prefiller.port}")
        with start("decoder", run_dir, *flags) as decoder:
            async with calling(decoder, single) as (split, alone):
                for question in (LONG, "What is the capital of France?"):
                    asked = chat(question, max_new_tokens=40)
                    answers = [await ask(channel, asked) for channel in (split, alone)]
                    assert answers[0].text() == answers[1].text() != ""
                    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens
                    assert answers[0].timings[0]["prompt_evaluated"] <= 1
                    assert "prefill_evaluated" not in answers[1].timings[0]


async def test_several_requests_at_once_each_get_their_own_answer(decoder: Served):
    async with calling(decoder) as (channel,):
        words = ["apple", "river", "candle", "mirror"]
        texts: dict[str, str] = {}

        async def run(word: str) -> None:
            answer = await ask(channel, chat(f"Spell the word {word}.", max_new_tokens=24))
            assert answer.error is None
            assert answer.timings[0]["prompt_evaluated"] <= 1
            texts[word] = answer.text()

        async with trio.open_nursery() as nursery:
            for word in words:
                nursery.start_soon(run, word)
        assert all(word in texts[word].lower() for word in words), texts
        assert (await status(channel))["busy"] == 0


async def test_more_than_slots_and_queue_hold_is_refused(decoder: Served):
    async with calling(decoder) as (channel,):
        errors: list[Any] = []

        async def run() -> None:
            answer = await ask(channel, chat("Tell a story.", max_new_tokens=20, ignore_eos=True))
            errors.append(answer.error)

        async with trio.open_nursery() as nursery:
            for _ in range(SLOTS + 2 + 3):
                nursery.start_soon(run)
        refused = [error for error in errors if error is not None]
        assert len(refused) == 3
        assert all(isinstance(error, Overloaded) for error in refused)


async def test_a_cancel_while_decoding_frees_the_slot(decoder: Served):
    async with calling(decoder) as (channel,):
        began = trio.Event()
        async with trio.open_nursery() as nursery:
            endless = chat("Tell a long story.", max_new_tokens=900, ignore_eos=True)
            nursery.start_soon(lambda: ask(channel, endless, began=began))
            await began.wait()
            nursery.cancel_scope.cancel()
        assert await seconds_until_free(channel) < 1
        assert (await status(channel))["calls"][-1]["ended"] == "cancelled"


async def test_a_cancel_while_prefilling_frees_both_slots(decoder: Served, prefiller: Served):
    async with calling(decoder, prefiller) as (decode, prefill):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, decode, chat("Now: " + LONG))
            while not (await status(prefill))["busy"]:
                await trio.sleep(0.01)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
        # The decoder at once; the prefiller after the batch that runs.
        assert await seconds_until_free(decode) < 0.5
        assert await seconds_until_free(prefill) < 2
        for channel in (decode, prefill):
            assert (await status(channel))["calls"][-1]["ended"] == "cancelled"


async def test_nothing_is_left_in_the_run_folder(decoder: Served, run_dir: Path):
    async with calling(decoder) as (channel,):
        assert (await ask(channel, chat("Hello.", max_new_tokens=2))).timings[0]["kv_bytes"] > 0
    assert not list(run_dir.rglob("*.kv"))  # noqa: ASYNC240 (a folder in memory)


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(decoder: Served):
    async with calling(decoder) as (channel,):
        error = (await ask(channel, chat("word " * (CONTEXT + 10)))).error
        assert isinstance(error, InvalidRequest)
        assert error.code == "context_length_exceeded"
        assert str(CONTEXT) in error.message
        assert "prompt has 10" in error.message
        plain = (await ask(channel, method("completion", prompt="word " * (CONTEXT + 10)))).error
        assert isinstance(plain, InvalidRequest)
        assert (plain.param, plain.code) == ("prompt", "context_length_exceeded")
        much = (await ask(channel, chat("Hello.", min_tokens=CONTEXT))).error
        assert isinstance(much, InvalidRequest)
        assert much.param == "min_tokens"
        tight = (await ask(channel, chat("Hello.", max_prompt_tokens=5))).error
        assert isinstance(tight, InvalidRequest)
        assert tight.param == "max_prompt_tokens"


async def test_an_answer_that_reaches_the_context_ends_with_length(single: Served):
    async with calling(single) as (channel,):
        tight = chat("word " * (CONTEXT - 60), ignore_eos=True)
        answer = await ask(channel, tight)
        assert answer.finishes == ["length"]
        assert answer.usage.total_tokens <= CONTEXT + 1


async def test_parameters_reach_the_sampler(single: Served):
    async with calling(single) as (channel,):
        plain = (await ask(channel, chat("Count to ten.", max_new_tokens=24))).text()
        stopped = await ask(channel, chat("Count to ten.", max_new_tokens=24, stop=plain[8:12]))
        assert stopped.text() == plain[: plain.index(plain[8:12])]
        assert stopped.finishes == ["stop"]
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        forced = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = await ask(channel, chat("Hi.", max_new_tokens=40, response_format=forced))
        assert answer.text().lstrip().startswith("{")
        grammar = 'root ::= "yes" | "no"'
        assert (await ask(channel, chat("Hi.", guided_grammar=grammar))).text() in ("yes", "no")
        biased = chat("Hi.", max_new_tokens=3, logit_bias={28: 100.0})
        assert (await ask(channel, biased)).text() == ",,,"
        foreign = (await ask(channel, chat("Hi.", logit_bias={28: 1.0, 10**6: 1.0}))).error
        assert isinstance(foreign, InvalidRequest)
        assert (foreign.param, "1000000 is no token" in foreign.message) == ("logit_bias", True)


async def test_a_seed_repeats_an_answer_and_each_choice_differs(run_dir: Path):
    # From empty caches, as above: the second request gets the other slot.
    with start("decoder", run_dir) as process:
        async with calling(process) as (channel,):
            asked = chat("Invent a name.", max_new_tokens=12, temperature=1.5, seed=11, n=2)
            one, two = [await ask(channel, asked) for _ in range(2)]
            assert (one.text(0), one.text(1)) == (two.text(0), two.text(1))
            assert one.text(0) != one.text(1)
            assert len(one.finishes) == 2
            assert [timings["prompt_evaluated"] for timings in one.timings] == [1, 1]
            assert one.usage.completion_tokens == sum(t["predicted"] for t in one.timings)


async def test_logprobs_come_with_their_alternatives(single: Served):
    async with calling(single) as (channel,):
        answer = await ask(channel, chat("Hi.", max_new_tokens=3, logprobs=2))
        entries = [entry for delta in answer.deltas for entry in delta.logprobs]
        assert "".join(entry["token"] for entry in entries) == answer.text()
        assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


async def test_a_second_turn_finds_its_prefix_in_the_cache(single: Served):
    async with calling(single) as (channel,):
        first = "Remember: " + " ".join(str(number) for number in range(120))
        # All slots get the first turn, whichever the second one meets.
        answers = [await ask(channel, chat(first, max_new_tokens=1)) for _ in range(2 * SLOTS)]
        answer = answers[-1]
        again = await ask(channel, chat(first, answer.text(), "And now?", max_new_tokens=1))
        assert again.usage.cached_tokens is not None
        assert again.usage.cached_tokens > answer.usage.prompt_tokens * 0.8


@pytest.mark.parametrize(
    "given", [{"guided_grammar": "root ::= ("}, {"min_tokens": 5, "logprobs": 1}]
)
async def test_what_cant_be_done_is_an_invalid_argument(single: Served, given: dict[str, Any]):
    async with calling(single) as (channel,):
        assert isinstance((await ask(channel, chat("Hi.", **given))).error, InvalidRequest)


ODD_SCHEMA = {"type": "object", "properties": {"a": {"type": "odd"}}}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"guided_grammar": "root ::= ("}, "guided_grammar"),
        ({"guided_json": ODD_SCHEMA}, "guided_json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": ODD_SCHEMA}}},
            "response_format",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"chat_template_kwargs": {"messages": [1]}}, "chat_template_kwargs.messages"),
    ],
)
async def test_what_llama_cpp_would_refuse_names_the_parameter(
    single: Served, given: dict[str, Any], param: str
):
    async with calling(single) as (channel,):
        error = (await ask(channel, chat("Hi.", **given))).error
        assert isinstance(error, InvalidRequest)
        assert error.param == param
        assert "parser" not in error.message


async def test_numbers_beyond_32_bits_mean_what_they_say(single: Served):
    async with calling(single) as (channel,):
        asked = chat("Count to ten.", max_new_tokens=2**32 + 2, top_k=2**32 + 1, stop="4")
        answer = await ask(channel, asked)
        assert answer.error is None
        assert answer.usage.completion_tokens > 2


async def test_bytes_and_number_keys_are_read_as_json_would_spell_them(single: Served):
    async with calling(single) as (channel,):
        asked = chat("Hi.", max_new_tokens=2, messages=[{"role": "user", "content": b"Hi."}])
        assert (await ask(channel, asked)).error is None
        schema = {"type": "object", "properties": {5: {"type": "integer"}}, "required": ["5"]}
        answer = await ask(channel, chat("Hi.", max_new_tokens=30, guided_json=schema))
        assert answer.error is None
        assert '"5"' in answer.text()


async def test_choices_in_turn_never_fail(single: Served):
    async with calling(single) as (channel,):
        for _ in range(10):
            answer = await ask(channel, chat("Hi.", max_new_tokens=2, n=5))
            assert answer.error is None
            assert len(answer.finishes) == 5


async def test_a_last_assistant_turn_is_continued_only_when_asked(single: Served):
    async with calling(single) as (channel,):
        turns = ("What is the capital of France?", "The capital of France is")
        continued = await ask(channel, chat(*turns, max_new_tokens=4, continue_final_message=True))
        assert continued.text().startswith(" Paris")
        fresh = await ask(channel, chat(*turns, max_new_tokens=4))
        # The turn's end and the head of a new one.
        assert fresh.usage.prompt_tokens > continued.usage.prompt_tokens


async def test_completions_continue_a_prompt(decoder: Served):
    async with calling(decoder) as (channel,):
        asked = {"max_new_tokens": 3, "temperature": 0.0, "logprobs": 1}
        answer = await ask(
            channel, method("completion", prompt="The capital of France is", **asked)
        )
        assert answer.text().startswith(" Paris")
        assert answer.finishes == ["length"]
        tokens = await channel.call(method("tokenize", text="The capital of France is"))
        prompt = from_value(tokens.outputs["tokens"])
        by_tokens = await ask(channel, method("completion", prompt=prompt, **asked))
        assert by_tokens.text() == answer.text()
        echoed = await ask(
            channel,
            method(
                "completion",
                prompt="The capital of France is",
                echo=True,
                temperature=0.0,
                max_new_tokens=3,
            ),
        )
        assert echoed.text().startswith("The capital of France is Paris")
        alone = await ask(channel, method("completion", prompt=prompt, echo=True, max_new_tokens=0))
        assert (alone.text(), alone.finishes) == ("The capital of France is", ["length"])
        for given in ({"echo": True, "logprobs": 1}, {"suffix": "."}):
            refused = (await ask(channel, method("completion", prompt="x", **given))).error
            assert isinstance(refused, InvalidRequest)
            assert refused.param in given
        foreign = (await ask(channel, method("completion", prompt=[10**6]))).error
        assert isinstance(foreign, InvalidRequest)
        assert foreign.param == "prompt"


async def test_tokens_go_there_and_back(prefiller: Served):
    async with calling(prefiller) as (channel,):
        made = await channel.call(method("tokenize", text="Grüße, 世界!"))
        assert from_value(made.outputs["max_model_len"]) == CONTEXT
        tokens = from_value(made.outputs["tokens"])
        assert from_value(made.outputs["count"]) == len(tokens)
        back = await channel.call(method("detokenize", tokens=tokens))
        assert from_value(back.outputs["text"]) == "Grüße, 世界!"
        made = await channel.call(method("tokenize", text=""))
        assert from_value(made.outputs["count"]) == 0
        none = await channel.call(method("detokenize", tokens=from_value(made.outputs["tokens"])))
        assert from_value(none.outputs["text"]) == ""
        for asked in (
            method("detokenize", tokens=[2**31 - 1]),
            method("tokenize", messages=[{"role": "user", "content": 5}]),
        ):
            with pytest.raises(InvalidRequest):
                await channel.call(asked)


async def test_roles_say_what_they_do_not_offer(decoder: Served, prefiller: Served):
    async with calling(decoder, prefiller) as (decode, prefill):
        for channel, asked in ((decode, method("prefill", tokens=[1])), (prefill, chat("Hi."))):
            assert isinstance((await ask(channel, asked)).error, NotImplementedByEngine)
        assert [(await status(channel))["role"] for channel in (decode, prefill)] == [
            "decoder",
            "prefiller",
        ]
        assert await decode.control(ControlType(ControlType.HealthCheck)) == {"status": "ok"}
        other = chat("Hi.")
        other.model_name = "gpt-9"
        assert isinstance((await ask(decode, other)).error, UnknownModel)


@pytest.mark.parametrize("tokens", [[], [-1], [2**31], [10**6], "text", list(range(CONTEXT))])
async def test_tokens_that_cant_be_prefilled_are_refused(prefiller: Served, tokens: Any):
    async with calling(prefiller) as (channel,):
        answer = await ask(channel, method("prefill", tokens=tokens))
        assert isinstance(answer.error, InvalidRequest)


async def test_a_dead_prefiller_is_told_at_once_and_a_new_one_works(run_dir: Path):
    port = free_port()
    with start("decoder", run_dir, "--prefillers", f"127.0.0.1:{port}") as decoder:
        async with calling(decoder) as (channel,):
            with start("prefiller", run_dir, port=port) as prefiller:
                assert (await ask(channel, chat("Hi.", max_new_tokens=1))).error is None
                async with trio.open_nursery() as nursery:

                    async def fail() -> None:
                        lost = await ask(channel, chat(LONG))
                        assert isinstance(lost.error, Unavailable)

                    nursery.start_soon(fail)
                    await trio.sleep(0.5)
                    prefiller.signal(signal.SIGKILL)
            began = trio.current_time()
            gone = await ask(channel, chat("Hi."))
            assert isinstance(gone.error, Unavailable)
            assert trio.current_time() - began < 0.5
            with start("prefiller", run_dir, port=port):
                back = await ask(channel, chat("Hi.", max_new_tokens=1))
                assert back.error is None
                assert back.timings[0]["prompt_evaluated"] <= 1


async def test_local_prefill_stands_in_where_it_is_allowed(run_dir: Path):
    flags = ("--prefillers", f"127.0.0.1:{free_port()}", "--local-prefill")
    with start("decoder", run_dir, *flags) as decoder:
        async with calling(decoder) as (channel,):
            answer = await ask(channel, chat("Hi.", max_new_tokens=1))
            assert answer.error is None
            assert "local_prefill_ms" in answer.timings[0]


@pytest.mark.parametrize("role", ["decoder", "prefiller"])
def test_sigint_ends_it_within_two_seconds_even_while_it_computes(role: str, run_dir: Path):
    # One batch takes seconds: nobody waits for it.
    with start(role, run_dir, "--ubatch", "1024") as process:
        asked = (
            method("prefill", tokens=list(range(1000, 1900))) if role == "prefiller" else chat(LONG)
        )

        async def load() -> None:
            async with calling(process) as (channel,):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, channel, asked)
                    while not (await status(channel))["busy"]:
                        await trio.sleep(0.01)
                    await trio.sleep(0.2)
                    began = time.monotonic()
                    process.signal(signal.SIGINT)
                    code = await trio.to_thread.run_sync(process.wait, 5)
                    assert time.monotonic() - began < 2
                    assert code == 0, process.log

        trio.run(load)
    assert not [path for path in run_dir.iterdir() if not _held(path)]


def _held(path: Path) -> bool:
    """Whether a living process holds the folder's lock."""
    import fcntl

    with (path / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
