"""What a request can ask of the engine, on the real model."""

import random
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from hypothesis import HealthCheck, Phase, assume, given, settings
from jsonschema import Draft202012Validator

from ark_trio.config import Settings
from ark_trio.engine.llama.grammar.schema import schema_rules
from ark_trio.engine.llama.grammar.writer import Unsupported
from ark_trio.errors import InvalidRequest, PrefillerFailed
from ark_trio.model import find_model
from ark_trio.rpc.bridge import open_bridge
from ark_trio.rpc.client import ArkChannel, open_channel
from ark_wire.inference import ControlType
from tests.support.gbnf import BAD, GOOD
from tests.support.llama import Answer, ask, chat, method, status
from tests.support.passing import passing
from tests.support.processes import Served, engine, listens, running, wait_until
from tests.support.schemas import SCHEMAS
from tests.support.templates import THINKING, TOOLS

pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]

FLAGS = ("--slots", "2", "--context-tokens", "1024", "--threads", "1")
EOS = 2
"""The small model's token that ends an answer."""
QUESTION = "Tell me about the river Danube."


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kv")


def start(role: str, run_dir: Path, *flags: str) -> Any:
    return engine(role, *FLAGS, "--run-dir", str(run_dir), *flags, driver="llama")


@pytest.fixture(scope="module")
def single(run_dir: Path) -> Iterator[Served]:
    with start("decoder", run_dir) as served:
        yield served


@asynccontextmanager
async def calling(process: Served) -> AsyncIterator[ArkChannel]:
    async with open_bridge() as bridge:
        async with open_channel(bridge, "127.0.0.1", process.port) as channel:
            yield channel


async def test_a_stop_is_cut_wherever_tokens_cut_it(single: Served):
    rng, stop = random.Random(7), ""
    async with calling(single) as channel:
        text = (await ask(channel, chat(QUESTION, max_new_tokens=24, seed=1))).text()
        for _ in range(10):
            begin = rng.randrange(len(text) - 6)
            stop = text[begin : begin + rng.randrange(1, 6)]
            stops = [stop, text[-4:] + "never"]
            answer = await ask(channel, chat(QUESTION, max_new_tokens=24, seed=1, stop=stops))
            assert answer.text() == text[: text.index(stop)], stop
            assert answer.finishes == ["stop"]
        kept = chat(QUESTION, max_new_tokens=24, seed=1, stop=stop, include_stop_str_in_output=True)
        assert (await ask(channel, kept)).text() == text[: text.index(stop) + len(stop)]


async def test_what_only_looks_like_a_stop_is_said_to_the_end(single: Served):
    async with calling(single) as channel:
        plain = await ask(channel, chat(QUESTION, max_new_tokens=12, seed=1))
        near = chat(QUESTION, max_new_tokens=12, seed=1, stop=plain.text()[-5:] + "\x00")
        answer = await ask(channel, near)
        assert (answer.text(), answer.finishes) == (plain.text(), ["length"])


async def test_a_stop_token_ends_the_answer_before_it(single: Served):
    async with calling(single) as channel:
        plain = (await ask(channel, chat(QUESTION, max_new_tokens=24, seed=1))).text()
        made = await channel.call(method("tokenize", text=plain))
        tokens = list(made.outputs["tokens"].int64_list.values)
        last = next(
            token for token in tokens if tokens.count(token) == 1 and tokens.index(token) > 4
        )
        asked = chat(QUESTION, max_new_tokens=24, seed=1, stop_token_ids=[last])
        answer = await ask(channel, asked)
        before = method("detokenize", tokens=tokens[: tokens.index(last)])
        assert answer.text() == (await channel.call(before)).outputs["text"].string_
        assert answer.usage.completion_tokens == tokens.index(last) + 1


async def test_at_least_min_tokens_come_whatever_would_end_them(single: Served):
    async with calling(single) as channel:
        short = await ask(channel, chat("Say hi.", seed=1, stop="!", max_new_tokens=60))
        count = short.usage.completion_tokens
        assert count < 40
        longer = chat("Say hi.", seed=1, stop="!", min_tokens=40, max_new_tokens=45)
        answer = await ask(channel, longer)
        assert 40 <= answer.usage.completion_tokens <= 45
        ending = {"logit_bias": {EOS: 100.0}, "max_new_tokens": 60}
        assert (await ask(channel, chat("Say hi.", **ending))).usage.completion_tokens == 1
        later = await ask(channel, chat("Say hi.", min_tokens=20, **ending))
        assert (later.usage.completion_tokens, later.finishes) == (21, ["stop"])
        assert len(later.text()) > 20
        assert "<|" not in later.text()
        # As programs ask that measure engines.
        never = chat("Say hi.", min_tokens=20, ignore_eos=True, max_new_tokens=30)
        answer = await ask(channel, never)
        assert (answer.usage.completion_tokens, answer.finishes) == (30, ["length"])
        exact = chat("Say hi.", seed=1, min_tokens=20, max_new_tokens=20)
        answer = await ask(channel, exact)
        assert (answer.usage.completion_tokens, answer.finishes) == (20, ["length"])


@pytest.mark.parametrize(
    ("held", "pattern"),
    [
        ({"guided_regex": r"\d{4}-\d{2}( or so)?"}, r"\d{4}-\d{2}( or so)?"),
        # Minutes, if llama.cpp is given it as it stands.
        ({"guided_regex": "(a?b?c? ?){0,20}"}, "(a?b?c? ?){0,20}"),
        ({"guided_choice": ['a "quoted\\" one', "两"]}, r'a "quoted\\" one|两'),
        ({"structured_outputs": {"regex": "[a-f]{3}x"}}, "[a-f]{3}x"),
        ({"guided_grammar": 'root ::= "0x" [0-9a-f]{4}'}, "0x[0-9a-f]{4}"),
    ],
)
async def test_output_is_held_to_what_is_asked(single: Served, held: dict[str, Any], pattern: str):
    async with calling(single) as channel:
        for temperature in (0.0, 1.5):
            answer = await ask(channel, chat("Anything.", temperature=temperature, **held))
            assert re.fullmatch(pattern, answer.text()), answer.text()
            assert answer.finishes == ["stop"]


async def test_what_other_programs_take_for_ends_of_lines_is_text(single: Served):
    for breaking in "\u0085\u2028\u2029":
        schema = {"const": f"a{breaking}b"}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        async with calling(single) as channel:
            for held in (
                {"response_format": form},
                {"guided_choice": [orjson.dumps(schema["const"]).decode()]},
            ):
                answer = await ask(channel, chat("x", max_new_tokens=30, **held))
                assert answer.error is None
                assert orjson.loads(answer.text()) == schema["const"]


async def test_a_grammar_is_judged_as_llama_cpp_does_and_none_is_shown_to_the_log(single: Served):
    async with calling(single) as channel:
        for grammar in GOOD:
            asked = chat("x", guided_grammar=grammar, max_new_tokens=1, cache_salt="g")
            assert (await ask(channel, asked)).error is None, grammar
        for grammar, why in BAD:
            error = (await ask(channel, chat("x", guided_grammar=grammar))).error
            assert isinstance(error, InvalidRequest)
            assert error.message == f"guided_grammar: {why}."
    assert "parse:" not in single.log


async def test_any_object_is_json(single: Served):
    async with calling(single) as channel:
        form = {"type": "json_object"}
        for seed in range(3):
            asked = chat("A city as JSON.", response_format=form, seed=seed, max_new_tokens=90)
            answer = await ask(channel, asked)
            if answer.finishes == ["stop"]:
                assert isinstance(orjson.loads(answer.text()), dict)
            else:
                assert answer.text().startswith("{")


def test_output_is_valid_under_generated_schemas(single: Served):
    whole = []

    @settings(
        max_examples=12,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMAS)
    def check(schema: Any) -> None:
        assume(isinstance(schema, dict))
        try:
            schema_rules(schema)
        except Unsupported:
            assume(False)
        answer = trio.run(run, schema)
        assert answer.error is None, (schema, answer.error)
        if answer.finishes == ["stop"]:
            Draft202012Validator(schema).validate(orjson.loads(answer.text()))
            whole.append(schema)

    async def run(schema: Any) -> Answer:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        async with calling(single) as channel:
            asked = chat("An example.", temperature=0.8, response_format=form, max_new_tokens=80)
            return await ask(channel, asked)

    check()
    assert len(whole) >= 5  # the others were cut off by their length


async def test_what_the_models_tokens_cant_write_is_refused(single: Served):
    async with calling(single) as channel:
        error = (await ask(channel, chat("x", guided_choice=["\U00051125"]))).error
        assert isinstance(error, InvalidRequest)
        assert error.param == "guided_choice"


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum above its maximum"),
        (
            {"type": "object", "properties": {"a": False}, "required": ["a"]},
            "/properties/a is false",
        ),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ],
)
async def test_an_impossible_schema_is_refused_with_the_reason(
    single: Served, schema: Any, why: str
):
    async with calling(single) as channel:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        error = (await ask(channel, chat("x", response_format=form))).error
        assert isinstance(error, InvalidRequest)
        assert why in error.message
        assert error.param == "response_format"


PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS_ASKED: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "get_time", "description": "The time."}},
]
WEATHER = "What is the weather in Paris?"


def calls_of(answer: Answer) -> list[tuple[str, Any]]:
    """Names and arguments of an answer's calls, each with an id."""
    deltas = [call for delta in answer.deltas for call in delta.tool_calls]
    found = []
    for index in sorted({call.index for call in deltas}):
        parts = [call for call in deltas if call.index == index]
        assert parts[0].id
        found.append((parts[0].name or "", orjson.loads("".join(p.arguments for p in parts))))
    return found


@pytest.fixture(scope="module", params=["told in text", "by the template"])
def with_tools(request: pytest.FixtureRequest, single: Served, run_dir: Path) -> Iterator[Served]:
    if request.param == "told in text":
        yield single
        return
    path = run_dir / "tools.jinja"
    path.write_text(TOOLS)
    with start("decoder", run_dir, "--chat-template", str(path)) as served:
        yield served


async def test_tools_are_called_as_the_choice_says(with_tools: Served):
    async with calling(with_tools) as channel:
        for choice, names in (
            ("required", {"get_weather", "get_time"}),
            ({"type": "function", "function": {"name": "get_weather"}}, {"get_weather"}),
        ):
            asked = chat(WEATHER, tools=TOOLS_ASKED, tool_choice=choice, max_new_tokens=200)
            answer = await ask(channel, asked)
            assert answer.error is None
            calls = calls_of(answer)
            assert calls
            assert {name for name, _ in calls} <= names
            for name, arguments in calls:
                if name == "get_weather":
                    Draft202012Validator(PARAMETERS).validate(arguments)
            assert answer.finishes == ["tool_calls"]
            assert "tool_call" not in answer.text()
        for choice in ("none", "auto"):
            asked = chat("Hello!", tools=TOOLS_ASKED, tool_choice=choice, max_new_tokens=12)
            answer = await ask(channel, asked)
            assert answer.error is None
            assert answer.text() or calls_of(answer)
            assert choice == "auto" or not calls_of(answer)


async def test_a_forced_call_cut_by_its_length_is_a_part_of_a_call_and_no_text(with_tools: Served):
    named = {"type": "function", "function": {"name": "get_weather"}}
    async with calling(with_tools) as channel:
        for most, begun in ((1, False), (3, False), (8, False), (24, True)):
            asked = chat(WEATHER, tools=TOOLS_ASKED, tool_choice=named, max_new_tokens=most)
            answer = await ask(channel, asked)
            assert (answer.error, answer.finishes, answer.text()) == (None, ["length"], "")
            calls = [call for delta in answer.deltas for call in delta.tool_calls]
            assert [call.name for call in calls[:1]] == ["get_weather"] * begun


async def test_tools_that_contradict_themselves_are_refused_and_the_engine_goes_on(
    with_tools: Served,
):
    # llama.cpp's own grammars of these would take all memory.
    odd = ({"type": "string", "minLength": 5, "maxLength": 1}, {"pattern": "^a{3,1}$"})
    async with calling(with_tools) as channel:
        for schema in odd:
            function = {"name": "f", "parameters": {"properties": {"x": schema}}}
            tools = [{"type": "function", "function": function}]
            error = (await ask(channel, chat("Hi.", tools=tools, max_new_tokens=1))).error
            assert isinstance(error, InvalidRequest)
            assert "/properties/x has" in error.message
        assert (await ask(channel, chat("Hi.", max_new_tokens=1))).error is None


async def test_a_conversation_with_calls_and_results_goes_on(with_tools: Served):
    call = {"id": "1", "type": "function"}
    function = {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}
    messages = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "18 degrees"},
    ]
    async with calling(with_tools) as channel:
        asked = method("chat", messages=messages, tools=TOOLS_ASKED, max_new_tokens=8, seed=1)
        answer = await ask(channel, asked)
        assert answer.error is None
        assert answer.usage.prompt_tokens > 120


async def test_of_its_own_accord_a_model_calls_in_the_form_it_has_seen(single: Served):
    function = {"name": "get_time", "arguments": "{}"}
    call = {"id": "1", "type": "function", "function": function}
    turn = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    async with calling(single) as channel:
        asked = method(
            "chat",
            messages=[*turn, *turn, *turn, turn[0]],
            tools=TOOLS_ASKED,
            temperature=0.0,
            max_new_tokens=60,
            parallel_tool_calls=False,
        )
        answer = await ask(channel, asked)
        assert calls_of(answer) == [("get_time", {})]
        assert answer.finishes == ["tool_calls"]


async def test_reasoning_is_told_apart_where_the_template_begins_it(run_dir: Path):
    path = run_dir / "thinking.jinja"
    path.write_text(THINKING)
    with start("decoder", run_dir, "--chat-template", str(path)) as served:
        async with calling(served) as channel:
            grammar = 'root ::= "I wonder" "\\n</think>\\n\\n" "Yes."'
            answer = await ask(channel, chat("Hm?", guided_grammar=grammar))
            assert "".join(delta.reasoning for delta in answer.deltas).strip() == "I wonder"
            assert answer.text().strip() == "Yes."
            assert 0 < (answer.usage.reasoning_tokens or 0) < answer.usage.completion_tokens - 2


async def test_a_seed_repeats_an_answer_whatever_was_cached_before(run_dir: Path):
    long = "Here are some numbers: " + " ".join(map(str, range(150)))
    asked = chat(long, "Yes?", "Invent a story.", seed=5, temperature=1.2, max_new_tokens=16)
    with start("prefiller", run_dir) as prefiller:
        flags = ("--prefillers", f"127.0.0.1:{prefiller.port}")
        with start("decoder", run_dir, *flags) as split, start("decoder", run_dir) as alone:
            texts, cached = set(), []
            for process in (split, alone):
                async with calling(process) as channel:
                    # Other prompts, and beginnings of this one, before and between.
                    for before in ((long,), ("x",), (long, "Yes?", "Invent a song.")):
                        await ask(channel, chat(*before, max_new_tokens=3))
                        answer = await ask(channel, asked)
                        texts.add(answer.text())
                        cached.append(answer.usage.cached_tokens or 0)
    assert len(texts) == 1
    assert max(cached) >= 256  # and that without computing all of it again


async def test_a_second_turn_computes_only_what_is_new_on_the_prefiller(run_dir: Path):
    first = "Remember: " + " ".join(str(number) for number in range(150))
    with start("prefiller", run_dir) as prefiller:
        with start("decoder", run_dir, "--prefillers", f"127.0.0.1:{prefiller.port}") as split:
            async with calling(split) as channel:
                one = await ask(channel, chat(first, max_new_tokens=4))
                # Another conversation in between takes the other slot.
                await ask(channel, chat("Something else.", max_new_tokens=1))
                two = await ask(channel, chat(first, one.text(), "And now?", max_new_tokens=1))
    new = two.usage.prompt_tokens - one.usage.prompt_tokens
    assert one.timings[0]["prefill_evaluated"] == one.usage.prompt_tokens > 400
    assert two.timings[0]["prefill_evaluated"] <= new + 4
    assert two.usage.cached_tokens == two.usage.prompt_tokens - two.timings[0]["prefill_evaluated"]


async def test_a_salt_keeps_prefixes_apart(single: Served):
    async with calling(single) as channel:
        prompt = "Salted: " + " ".join(str(number) for number in range(60))
        for salt, shared in (("a", False), ("b", False), ("b", True), ("", False)):
            answer = await ask(channel, chat(prompt, max_new_tokens=1, cache_salt=salt))
            assert bool(answer.usage.cached_tokens) == shared, salt


async def test_a_long_prompt_does_not_hold_up_a_short_one(single: Served):
    long = "Count: " + " ".join(str(number) for number in range(240))
    order: list[str] = []

    async def run(channel: ArkChannel, name: str, prompt: str) -> None:
        answer = await ask(channel, chat(prompt, max_new_tokens=1))
        assert answer.error is None
        order.append(name)

    async with calling(single) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(run, channel, "long", long)
        while not (await status(channel))["busy"]:
            await trio.sleep(0.01)
        nursery.start_soon(run, channel, "short", "Hi!")
    assert order == ["short", "long"]


async def test_a_prefiller_that_dies_is_replaced_before_the_first_token(run_dir: Path):
    long = "about " + " ".join(f"town number {number}," for number in range(45))
    begun: list[int] = []
    """How much had come from each prefiller before the request that runs."""
    sent = [0, 0, 0]
    dying: list[tuple[int, float]] = []
    """After how many bytes of its answer, and how much later, whoever is asked dies."""
    async with AsyncExitStack() as stack:
        three = [stack.enter_context(start("prefiller", run_dir)) for _ in sent]
        nursery = await stack.enter_async_context(trio.open_nursery())

        async def die(number: int, later_s: float) -> None:
            await trio.sleep(later_s)
            three[number].signal(signal.SIGKILL)

        def watch(number: int, count: int) -> None:
            sent[number] = count
            if dying and count - begun[number] > dying[0][0]:
                nursery.start_soon(die, number, dying.pop()[1])

        ports = [
            await stack.enter_async_context(passing(served.port, partial(watch, number)))
            for number, served in enumerate(three)
        ]
        flags = ("--prefillers", ",".join(f"127.0.0.1:{port}" for port in ports))
        decoder = stack.enter_context(start("decoder", run_dir, *flags))
        channel = await stack.enter_async_context(calling(decoder))
        # While it computes; and in mid-transfer of a state of 7 MB.
        for number, when in enumerate([(0, 0.3), (2 << 20, 0.0)]):
            begun = list(sent)
            dying.append(when)
            answer = await ask(channel, chat(f"{number}: {long}", max_new_tokens=2))
            assert answer.error is None
            facts = answer.timings[0]
            assert facts["prefill_evaluated"] == answer.usage.prompt_tokens
            assert [served.popen.poll() for served in three].count(None) == 2 - number
            more = sum(sent) - sum(begun) - facts["kv_bytes"]
            assert when[0] <= more < facts["kv_bytes"]
        nursery.cancel_scope.cancel()


async def test_any_other_model_serves_but_its_states_fit_no_other(run_dir: Path):
    path = run_dir / "renamed-Q4_1.gguf"
    name = b"Smollm2 135M 8k Lc100K Mix1 Ep2"
    with find_model(Settings()).open("rb") as file:
        path.write_bytes(file.read().replace(name, name[::-1], 1))
    with start("prefiller", run_dir, "--model", str(path)) as other:
        flags = ("--prefillers", f"127.0.0.1:{other.port}")
        with (
            start("decoder", run_dir, *flags, "--model", str(path)) as same,
            start("decoder", run_dir, *flags) as different,
        ):
            async with calling(same) as channel:
                assert (await status(channel))["models"] == ["renamed"]
                assert (await ask(channel, chat("Hi.", max_new_tokens=2))).error is None
            async with calling(different) as channel:
                refused = (await ask(channel, chat("Hi.", max_new_tokens=2))).error
                assert isinstance(refused, PrefillerFailed)
            assert "state does not fit: model differ" in different.log


async def test_metrics_are_told(single: Served):
    async with calling(single) as channel:
        before = await channel.control(ControlType(ControlType.PullMetrics))
        await ask(channel, chat("Hi.", max_new_tokens=3, ignore_eos=True))
        after = await channel.control(ControlType(ControlType.PullMetrics))
    assert after["completion_tokens_total"] - before["completion_tokens_total"] == 3
    assert after["calls_finished_total"] - before["calls_finished_total"] == 1
    assert after["decode_tokens_per_s"] > 0
    assert after["prefill_tokens_per_s"] > 0
    assert {"slots", "busy", "queued", "kv_bytes_total", "kv_transfer_ms_last"} <= set(after)


def test_a_model_that_cant_be_loaded_says_why_in_one_line(tmp_path: Path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\x01" * 5000)
    with running(["ark-trio", "decoder", "--grpc-bind", "127.0.0.1:0", "--model", str(bad)]) as it:
        assert it.wait(30) == 2
        [line] = it.log.splitlines()
        assert "only supports up to version" in orjson.loads(line)["reason"]


def test_sigint_ends_it_while_it_loads(run_dir: Path):
    command = ["ark-trio", "prefiller", *FLAGS, "--run-dir", str(run_dir)]
    for port in range(3):
        with running([*command, "--grpc-bind", f"127.0.0.1:{24810 + port}"]) as process:
            maps = Path(f"/proc/{process.popen.pid}/maps")
            wait_until(lambda maps=maps: ".gguf" in maps.read_text(), what="loading")
            loading = not listens(24810 + port)
            process.signal(signal.SIGINT)
            code = process.wait(1)
            if loading and code == -signal.SIGINT:
                return
    pytest.fail("it was never loading when the signal came")
