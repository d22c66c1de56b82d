"""Totals and rates."""

import pytest
import trio
from trio.testing import MockClock

from ark_trio.engine.llama.gauges import Gauges, Transferred


async def test_rates_are_those_of_the_last_minute(mock_clock: MockClock):
    gauges = Gauges()
    mock_clock.jump(10)
    gauges.completion(100, 1000.0)
    assert gauges.metrics()["decode_tokens_per_s"] == pytest.approx(10)
    mock_clock.jump(40)
    gauges.completion(200, 1000.0)
    assert gauges.metrics()["decode_tokens_per_s"] == pytest.approx(6)
    mock_clock.jump(30)
    assert gauges.metrics()["decode_tokens_per_s"] == pytest.approx(200 / 60)
    mock_clock.jump(100)
    assert gauges.metrics()["decode_tokens_per_s"] == 0
    assert gauges.metrics()["completion_tokens_total"] == 300
    await trio.lowlevel.checkpoint()


async def test_transfers_are_counted(mock_clock: MockClock):
    gauges = Gauges()
    gauges.moved(Transferred(bytes=10, ms=2.0))
    gauges.moved(Transferred(bytes=5, ms=1.0))
    told = gauges.metrics()
    assert (told["kv_bytes_total"], told["kv_transfers_total"]) == (15, 2)
    assert (told["kv_transfer_ms_total"], told["kv_transfer_ms_last"]) == (3, 1)
    await trio.lowlevel.checkpoint()


async def test_a_rush_of_events_keeps_its_rate(mock_clock: MockClock):
    gauges = Gauges()
    for _ in range(10_000):
        mock_clock.jump(0.001)
        gauges.prompt(1, 1.0)
    assert gauges.metrics()["prefill_tokens_per_s"] == pytest.approx(1000, rel=0.01)
    await trio.lowlevel.checkpoint()
