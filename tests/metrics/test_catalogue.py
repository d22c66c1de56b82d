"""Each metric moves by the event that it tells of: a scenario each, and a metric without one fails."""

import gc
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from prometheus_client.parser import text_string_to_metric_families

from ark_trio.config import FleetSettings, Limits
from ark_trio.errors import InternalError, Unreachable
from ark_trio.metrics.catalogue import CATALOGUE
from ark_trio.metrics.labels import MAX_KEYS, KeyNames
from ark_trio.protocol.step import Step, Usage
from tests.support.asgi import Client, Exchange, open_client
from tests.support.fake_engine import (
    MODEL,
    FakeDecoder,
    Script,
    failing,
    finish,
    hang,
    open_fake_decoder,
    saying,
    text,
)
from tests.support.keys import bearing, write_keys
from tests.support.stack import open_stack

CHAT = "/v1/chat/completions"
HERE = {"host": "127.0.0.1:18080"}
COMPLETED = {"endpoint": "/chat/completions", "model_name": MODEL, "outcome": "completed"}


@define(eq=False)
class Bench:
    """A gateway before a scripted engine, and what its /metrics says."""

    client: Client
    decoder: FakeDecoder
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(factory=dict)

    operator: dict[str, str] = field(factory=dict)
    """Headers of who asks for the metrics."""

    def ask(self, headers: dict[str, str] | None = None, **more: Any) -> Exchange:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **more}
        return self.client.start("POST", CHAT, asked, headers)

    async def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        answer = await self.client.ask("GET", "/metrics", headers={**HERE, **self.operator})
        assert answer.status == 200, answer.body
        families = text_string_to_metric_families(answer.body.decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    async def value(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        wanted = labels.items()
        return sum(
            value
            for (found, its), value in (await self.samples()).items()
            if found == name and wanted <= set(its)
        )


def script() -> Script:
    """Reason for 0.2 s, answer in three pieces 0.15 s apart, and tell all of its tokens."""

    async def run(call: Any, outbox: Any) -> None:
        await trio.sleep(0.2)
        for piece in ("a", "b", "c"):
            await outbox.put(call.say(text(piece)))
            await trio.sleep(0.15)
        await outbox.put(call.say(finish()))
        usage = Usage(prompt_tokens=7, cached_tokens=5, completion_tokens=3, reasoning_tokens=2)
        await outbox.put(call.say(Step(usage=usage)))

    return run


@asynccontextmanager
async def open_bench(script: Script, **settings: Any) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        decoder = await stack.enter_async_context(open_fake_decoder(script))
        client = await stack.enter_async_context(open_client(decoder.settings(**settings)))
        yield Bench(client, decoder)


Scenario = Callable[[str], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def moves(*names: str) -> Callable[[Scenario], Scenario]:
    """The scenario asserts these metrics."""

    def enter(scenario: Scenario) -> Scenario:
        SCENARIOS.update(dict.fromkeys(names, scenario))
        return scenario

    return enter


@moves("ark_requests_total")
async def _a_request_ends(name: str) -> None:
    async with open_bench(script()) as bench:
        await bench.ask().over.wait()
        assert await bench.value(name, **COMPLETED) == 1
        await bench.client.ask("POST", CHAT, {"model": MODEL})
        assert await bench.value(name, outcome="invalid_request", model_name="") == 1
        await bench.ask(model="nobody/serves").over.wait()
        assert await bench.value(name, outcome="not_found", model_name="other") == 1


_TOKENS = {
    "ark_prompt_tokens_total": 7,
    "ark_prompt_tokens_cached_total": 5,
    "ark_generation_tokens_total": 3,
    "ark_reasoning_tokens_total": 2,
}


@moves(*_TOKENS)
async def _an_answer_is_generated(name: str) -> None:
    async with open_bench(script()) as bench:
        await bench.ask().over.wait()
        assert await bench.value(name, model_name=MODEL) == _TOKENS[name]
        await bench.ask(stream=True).over.wait()
        assert await bench.value(name, model_name=MODEL) == 2 * _TOKENS[name]


_OF_A_KEY = {
    "ark_key_requests_total": 1,
    "ark_key_prompt_tokens_total": 7,
    "ark_key_prompt_tokens_cached_total": 5,
    "ark_key_generation_tokens_total": 3,
}


@moves(*_OF_A_KEY)
async def _a_key_asks(name: str) -> None:
    with TemporaryDirectory() as folder:
        keys = write_keys(Path(folder) / "keys", ann={}, bob={}, boss={"admin": True})
        async with open_bench(script(), keys_file=keys) as bench:
            bench.operator = bearing("boss")
            for key, times in (("ann", 2), ("bob", 1)):
                for _ in range(times):
                    await bench.ask(headers=bearing(key)).over.wait()
            for key, times in (("ann", 2), ("bob", 1)):
                assert await bench.value(name, key=key, model_name=MODEL) == times * _OF_A_KEY[name]
            await bench.client.ask("POST", CHAT, {"model": MODEL}, headers=bearing("bob"))
            await bench.client.ask("POST", CHAT, {"model": MODEL}, headers=bearing("mallory"))
            if name == "ark_key_requests_total":
                assert await bench.value(name, key="bob", outcome="invalid_request") == 1
            told = {dict(labels)["key"] for found, labels in await bench.samples() if found == name}
            assert told <= {"ann", "bob", "boss"}


def test_keys_beyond_a_number_are_told_as_one():
    names = KeyNames()
    told = {names.labels(f"k{number}", MODEL) for number in range(2 * MAX_KEYS)}
    assert len(told) == MAX_KEYS + 1
    assert ("other", MODEL) in told
    assert names.labels("k0", MODEL) == ("k0", MODEL)
    assert names.labels("k0", "another") == ("other", "another")


_ONE_ANSWER = {
    "ark_time_to_first_token_seconds": (1, 0.2),
    "ark_e2e_request_latency_seconds": (1, 0.65),
    "ark_inter_token_latency_seconds": (3, 0.45),
}


@moves(*_ONE_ANSWER)
async def _an_answer_takes_its_time(name: str) -> None:
    async with open_bench(script()) as bench:
        await bench.ask(stream=True).over.wait()
        count, total = _ONE_ANSWER[name]
        found = await bench.value(f"{name}_count", model_name=MODEL)
        # The usage, which comes last, may arrive with the finish or after it.
        assert found in ((count, count + 1) if "inter" in name else (count,))
        assert await bench.value(f"{name}_sum", model_name=MODEL) == pytest.approx(total, abs=0.1)
        assert await bench.value(f"{name}_bucket", model_name=MODEL, le="+Inf") == found


@moves("ark_gateway_overhead_seconds")
async def _the_gateway_works(name: str) -> None:
    async with open_bench(script()) as bench:
        assert await bench.value(f"{name}_count") == 0
        await bench.ask(stream=True).over.wait()
        assert await bench.value(f"{name}_count") == 1
        assert 0 < await bench.value(f"{name}_sum") < 0.1  # of an answer that took 0.65 s


@moves("ark_num_requests_running", "ark_num_requests_waiting", "ark_decoder_requests_running")
async def _requests_run_and_wait(name: str) -> None:
    async with open_bench(hang, limits=Limits(max_requests=2, max_waiting=5)) as bench:
        assert await bench.value(name) == 0
        for _ in range(5):
            bench.ask()
        await trio.sleep(0.2)
        assert await bench.value(name) == (3 if name == "ark_num_requests_waiting" else 2)


@moves("ark_max_requests_running", "ark_max_requests_waiting")
async def _the_limits_change(name: str) -> None:
    async with open_bench(hang, limits=Limits(max_requests=2, max_waiting=5)) as bench:
        assert await bench.value(name) == (2 if name.endswith("running") else 5)
        limits = Limits(max_requests=20, max_waiting=50)
        bench.client.web.gateway.apply(bench.decoder.settings(limits=limits))
        assert await bench.value(name) == (20 if name.endswith("running") else 50)


@moves("ark_request_queue_time_seconds")
async def _a_request_waits_in_line(name: str) -> None:
    async with open_bench(script(), limits=Limits(max_requests=1)) as bench:
        first, second = bench.ask(), bench.ask()
        await first.over.wait()
        await second.over.wait()
        assert await bench.value(f"{name}_count") == 2
        assert await bench.value(f"{name}_sum") == pytest.approx(0.65, abs=0.2)


@moves("ark_client_disconnects_total")
async def _a_client_leaves(name: str) -> None:
    async with open_bench(saying("a", then=hang), limits=Limits(max_requests=1)) as bench:
        running = bench.ask(stream=True)
        await running.wait_for_text("a")
        waiting = bench.ask()
        await trio.sleep(0.1)
        for exchange, phase in ((waiting, "queued"), (running, "decode")):
            exchange.leave()
            await exchange.over.wait()
            assert await bench.value(name, phase=phase, outcome="client_gone") == 1
        assert await bench.value(name) == 2
    async with open_bench(hang) as bench:
        exchange = bench.ask()
        while not bench.decoder.engine.calls:
            await trio.sleep(0.01)
        exchange.leave()
        await exchange.over.wait()
        assert await bench.value(name, phase="prefill") == 1


@moves("ark_decoder_ready", "ark_ready")
async def _a_decoder_goes(name: str) -> None:
    async with open_bench(script()) as bench:
        assert await bench.value(name) == 1
        bench.client.web.gateway.fleet.decoders[0].judge(Unreachable("gone"))
        assert await bench.value(name) == 0


@moves("ark_retries_total", "ark_decoder_ejected", "ark_decoder_ejections_total")
async def _a_decoder_fails(name: str) -> None:
    rules = FleetSettings(eject_faults=1, policy="round_robin")
    async with open_fake_decoder(failing(InternalError("broken"))) as broken:
        async with open_bench(script(), fleet=rules) as bench:
            both = (bench.decoder.address, broken.address)
            gateway = bench.client.web.gateway
            gateway.apply(evolve(gateway.settings, decoders=both))
            while not broken.engine.calls:
                await bench.ask().over.wait()
            labels = {"decoder": str(broken.address)} if "decoder" in name else {}
            assert await bench.value(name, **labels) == 1
            if labels:
                assert await bench.value(name, decoder=str(bench.decoder.address)) == 0
            assert await bench.value("ark_requests_total", outcome="internal_error") == 0


@moves("ark_draining")
async def _it_is_told_to_stop(name: str) -> None:
    async with open_bench(script()) as bench:
        assert await bench.value(name) == 0
        bench.client.web.gateway.leave()
        assert await bench.value(name) == 1


@moves("ark_connections", "ark_connections_total", "ark_max_connections")
async def _clients_connect(name: str) -> None:
    limits = Limits(max_connections=2)
    async with open_fake_decoder(hang) as decoder:
        async with open_stack(decoder.settings(limits=limits)) as stack:
            clients = []
            for _ in range(3):  # the third has the first, which is idle, make room
                client = await stack.connect()
                clients.append(client)
                await client.send(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                await client.read_until(b"process_start_time_seconds{")
            text = clients[-1].received.decode()
            for client in clients:
                await client.stream.aclose()
    if name == "ark_connections_total":
        # One more was there before: `open_stack` looks at the state before any request.
        assert f'{name}{{worker="1",outcome="accepted"}} 4\n' in text
        assert f'{name}{{worker="1",outcome="shed"}} 1\n' in text
        assert f'{name}{{worker="1",outcome="turned_away"}} 0\n' in text
    else:
        assert f'{name}{{worker="1"}} 2\n' in text


@moves("ark_event_loop_lag_seconds")
async def _the_loop_is_blocked(name: str) -> None:
    async with open_bench(script()) as bench:
        await trio.sleep(0.15)
        count, late = await bench.value(f"{name}_count"), await bench.value(f"{name}_sum")
        time.sleep(0.6)  # noqa: ASYNC251 (the fault itself)
        await trio.sleep(0.01)
        assert await bench.value(f"{name}_count") == count + 1
        assert 0.3 < await bench.value(f"{name}_sum") - late < 0.7


@moves("ark_gather_seconds")
async def _processor_time_is_short(name: str) -> None:
    async with open_bench(script()) as bench:
        assert await bench.value(name) == 0
        bench.client.web.gateway.pressure.see(1.0)
        assert await bench.value(name) == 0.01


@moves("ark_gc_pause_seconds")
async def _garbage_is_collected(name: str) -> None:
    async with open_bench(script()) as bench:
        count = await bench.value(f"{name}_count", generation="2")
        gc.collect()
        assert await bench.value(f"{name}_count", generation="2") >= count + 1
        assert await bench.value(f"{name}_sum", generation="2") > 0
    assert not any("metrics" in getattr(note, "__module__", "") for note in gc.callbacks)


@moves("ark_tasks")
async def _tasks_are_started(name: str) -> None:
    async with open_bench(hang) as bench:
        before = await bench.value(name)
        bench.ask()
        await trio.sleep(0.1)
        assert await bench.value(name) > before > 0


@moves("ark_worker_up", "ark_build_info")
async def _it_lives(name: str) -> None:
    async with open_bench(hang) as bench:
        assert await bench.value(name, worker="1") == 1


@moves("process_cpu_seconds_total")
async def _it_computes(name: str) -> None:
    async with open_bench(hang) as bench:
        before = await bench.value(name)
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        assert before + 0.1 <= await bench.value(name) < before + 5


@moves("process_resident_memory_bytes")
async def _it_takes_memory(name: str) -> None:
    async with open_bench(hang) as bench:
        before = await bench.value(name)
        kept = bytearray(b"x" * (64 << 20))
        assert await bench.value(name) > before + (len(kept) >> 1)


@moves("process_open_fds", "process_max_fds")
async def _it_opens_files(name: str) -> None:
    async with open_bench(hang) as bench:
        before = await bench.value(name)
        with trio.socket.socket(), trio.socket.socket():
            opened = await bench.value(name) - before
        assert opened == (2 if name == "process_open_fds" else 0)
        assert before > 0


@moves("process_start_time_seconds")
async def _it_starts(name: str) -> None:
    async with open_bench(hang) as bench:
        assert await bench.value(name) == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("name", CATALOGUE)
async def test_a_metric_moves_by_what_it_tells_of(name: str):
    with trio.fail_after(20):
        await SCENARIOS[name](name)


def test_each_metric_has_a_scenario_and_each_scenario_a_metric():
    assert set(SCENARIOS) == set(CATALOGUE)


async def test_nothing_is_exposed_that_is_not_in_the_catalogue():
    async with open_bench(script()) as bench:
        await bench.ask(stream=True).over.wait()
        for name, labels in await bench.samples():
            stem = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum")
            metric = CATALOGUE.get(name) or CATALOGUE[stem]
            extra = {"le"} if name.endswith("_bucket") else set()
            assert {key for key, _ in labels} == {"worker", *metric.labels} | extra


async def test_callers_add_no_label_values():
    async with open_bench(script()) as bench:
        await bench.ask().over.wait()
        before = {key for key in await bench.samples() if "ark_requests" not in key[0]}
        for number in range(50):
            await bench.ask(model=f"hostile-{number}").over.wait()
            await bench.client.ask("GET", f"/hostile/{number}", headers=HERE)
            await bench.client.ask("GET", f"/v1/models/hostile-{number}", headers=HERE)
            await bench.client.ask(f"HOSTILE{number}", "/v1/models", headers=HERE)
        after = await bench.samples()
        assert {key for key in after if "ark_requests" not in key[0]} == before
        labels = {labels for name, labels in after if name == "ark_requests_total"}
        assert len(labels) < 10
        assert "hostile" not in repr(labels).lower()


async def test_a_decoder_that_names_models_without_end_adds_few_label_values():
    async with open_fake_decoder(saying("a"), status={"models": [MODEL]}) as decoder:
        async with open_client(decoder.settings()) as client:
            names = client.web.gateway.book.models
            names.learn("x" * 1000)
            for number in range(1000):
                names.learn(f"m{number}")
            assert len({names.label(f"m{number}") for number in range(1000)}) == 129
            assert names.label("x" * 1000) == "other"


async def test_tokens_of_a_stream_are_counted_while_it_runs():
    async with open_bench(saying("a", "b", then=hang)) as bench:
        exchange = bench.ask(stream=True)
        await exchange.wait_for_text("ab")
        assert await bench.value("ark_generation_tokens_total", model_name=MODEL) == 2
        assert await bench.value("ark_requests_total", **COMPLETED) == 0
        exchange.leave()
        await exchange.over.wait()
        assert await bench.value("ark_generation_tokens_total", model_name=MODEL) == 2


async def test_an_engine_that_takes_tokens_back_turns_no_counter_back():
    async def run(call: Any, outbox: Any) -> None:
        for tokens in (5, 3):
            await outbox.put(call.say(text("a")))
            await outbox.put(call.say(Step(usage=Usage(completion_tokens=tokens))))
            await trio.sleep(0.2)
        await outbox.put(call.say(finish()))

    async with open_bench(run) as bench:
        exchange = bench.ask(stream=True)
        await exchange.wait_for_text("a")
        await trio.sleep(0.1)
        assert await bench.value("ark_generation_tokens_total") == 5
        await exchange.over.wait()
        assert await bench.value("ark_generation_tokens_total") == 5


async def test_a_client_that_reads_late_does_not_make_the_engine_look_slow():
    async with open_bench(saying("a", "b", "c", gap_s=0.1)) as bench:
        exchange = bench.ask(stream=True)
        await exchange.wait_for_text("a")
        exchange.stop_reading()
        await trio.sleep(1.0)
        exchange.read_on()
        await exchange.over.wait()
        name = "ark_inter_token_latency_seconds"
        assert await bench.value(f"{name}_sum", model_name=MODEL) < 0.5


async def test_every_histogram_is_cumulative_and_whole():
    async with open_bench(script()) as bench:
        await bench.ask(stream=True).over.wait()
        found = await bench.samples()
        for metric in CATALOGUE.values():
            if metric.kind != "histogram":
                continue
            series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
            for (name, labels), value in found.items():
                if name == f"{metric.name}_bucket":
                    le = float(dict(labels)["le"])
                    rest = frozenset(each for each in labels if each[0] != "le")
                    series.setdefault(rest, []).append((le, value))
            assert series, metric.name
            for labels, buckets in series.items():
                bounds, counts = zip(*sorted(buckets), strict=True)
                assert bounds == (*metric.bounds, math.inf)
                assert list(counts) == sorted(counts)
                assert counts[-1] == found[f"{metric.name}_count", labels]
