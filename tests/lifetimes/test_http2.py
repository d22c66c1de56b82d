"""The same promises over HTTP/2, where many streams share a client's connection and none may harm another."""

import signal
from contextlib import suppress

import pytest
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from ark_trio.config import Limits
from tests.lifetimes.test_client import PHASES, PROMPT_S, flood
from tests.support.fake_engine import hang, open_fake_decoder, saying
from tests.support.h2_front import assert_reset_beside_a_stream, connect
from tests.support.stack import open_stack

STREAM_PHASES = {
    name: phase for name, phase in PHASES.items() if not (phase.queued or phase.connecting)
}


@pytest.mark.parametrize("phase", list(STREAM_PHASES))
@pytest.mark.parametrize("how", ["resets-the-stream", "closes-the-connection"])
async def test_http2_client_leaves(phase: str, how: str, autojump_clock: trio.testing.MockClock):
    found = STREAM_PHASES[phase]
    async with open_fake_decoder(found.script) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                number = await front.ask(stream=found.stream)
                if found.until is not None:
                    await front.until(number, found.until)
                await trio.sleep(0.01)
                (call,) = decoder.engine.calls
                began = trio.current_time()
                if how == "resets-the-stream":
                    await front.reset(number)
                else:
                    await front.stream.aclose()
                with trio.fail_after(PROMPT_S):
                    await call.ended.wait()
                assert call.how == "cancelled"
                assert trio.current_time() - began <= PROMPT_S
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["client_gone"]


async def test_http2_a_stream_that_is_reset_leaves_the_others_alone(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"abcdef", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                numbers = [await front.ask() for _ in range(10)]
                await front.until(numbers[0], b'"content":"b"')
                for number in numbers[::2]:
                    await front.reset(number)
                for number in numbers[1::2]:
                    await front.until_ended(number)
                    assert front.data[number].endswith(b"data: [DONE]\n\n")
            await stack.assert_as_before(PROMPT_S)
            outcomes = sorted(end["outcome"] for end in stack.ends)
            assert outcomes == ["client_gone"] * 5 + ["completed"] * 5


async def test_http2_a_stream_that_is_not_read_is_dropped_and_holds_up_no_other(
    autojump_clock: trio.testing.MockClock,
):
    """Its window is full, its connection is well: the write limit counts for the stream."""

    async def script(call, outbox):
        if call is decoder.engine.calls[0]:
            await flood(call, outbox)
        else:
            await saying(*"abc", gap_s=1)(call, outbox)

    async with open_fake_decoder(script) as decoder:
        limits = Limits(stalled_write_s=30)
        async with open_stack(decoder.settings(limits=limits)) as stack:
            async with connect(stack) as front:
                stalled = await front.ask()
                front.stalled.add(stalled)
                await front.until(stalled, b'"content"')
                other = await front.ask()
                await front.until_ended(other)
                assert trio.current_time() < 5
                assert front.data[other].endswith(b"data: [DONE]\n\n")
                await front.until_ended(stalled)
                assert front.ended[stalled] == "reset"
                assert trio.current_time() == pytest.approx(30, abs=3)
                assert decoder.engine.calls[0].how == "cancelled"
                late = await front.ask()
                await front.until_ended(late)
                assert front.ended[late] == "done"
            await stack.assert_as_before(PROMPT_S)
            outcomes = [end["outcome"] for end in stack.ends]
            assert sorted(outcomes) == ["client_stalled", "completed", "completed"]


async def test_http2_abort_ends_every_stream_with_an_error_and_done(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                numbers = [await front.ask() for _ in range(5)]
                for number in numbers:
                    await front.until(number, b'"content":"a"')
                stack.gateway.abort()
                for number in numbers:
                    await front.until_ended(number)
                    assert front.data[number].endswith(b"data: [DONE]\n\n")
                    assert b"The gateway is being stopped." in front.data[number]
            await stack.assert_as_before(PROMPT_S)


async def test_http2_a_body_that_goes_on_after_its_answer_harms_no_other(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                running = await front.ask()
                early = front.h2.get_next_available_stream_id()
                fields = [(":method", "POST"), (":scheme", "http"), (":path", "/nope")]
                front.h2.send_headers(early, [*fields, (":authority", "x")])
                front.h2.send_data(early, b"x" * 100)
                await front.flush()
                while early not in front.status:
                    await front.changed.wait()
                assert front.status[early] == 404
                with suppress(ProtocolError):  # it was told to stop
                    front.h2.send_data(early, b"x" * 100)
                await front.flush()
                await front.until_ended(running)
                assert front.data[running].endswith(b"data: [DONE]\n\n")
            await stack.assert_as_before(PROMPT_S)


async def test_http2_a_request_in_the_drain_is_refused_and_the_others_finish(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying(*"abcd", gap_s=5)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                running = await front.ask()
                await front.until(running, b'"content":"a"')
                await stack.signals.send(signal.SIGTERM)
                await trio.sleep(7)
                assert front.goaway == ErrorCodes.NO_ERROR  # open another connection
                late = await front.ask()
                await front.until_ended(late)
                assert front.codes[late] == ErrorCodes.REFUSED_STREAM  # safe to retry elsewhere
                await front.until_ended(running)
                assert b'"finish_reason":"stop"' in front.data[running]
            with trio.fail_after(1):
                await stack.stopped.wait()


async def test_http2_a_connection_serves_more_than_a_thousand_requests(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                for _ in range(1005):
                    number = front.h2.get_next_available_stream_id()
                    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/livez")]
                    front.h2.send_headers(number, [*fields, (":authority", "x")], end_stream=True)
                    await front.flush()
                    await front.until_ended(number)
                    assert front.status[number] == 200
            await stack.assert_as_before(PROMPT_S)


async def test_http2_a_short_answer_that_is_not_read_is_dropped(
    autojump_clock: trio.testing.MockClock,
):
    """It is whole and waits for a window of 20 bytes."""
    async with open_fake_decoder(saying("a")) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                front.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20})
                number = await front.ask(stream=False)
                front.stalled.add(number)
                await front.until_ended(number)
                assert front.ended[number] == "reset"
                assert trio.current_time() == pytest.approx(30, abs=2)
            await stack.assert_as_before(PROMPT_S)
            assert [end["outcome"] for end in stack.ends] == ["client_stalled"]


@pytest.mark.parametrize("then", ["idle", "sigterm"])
async def test_http2_a_connection_whose_streams_were_reset_is_idle(
    then: str, autojump_clock: trio.testing.MockClock
):
    async with open_fake_decoder(saying("a", then=hang)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                for _ in range(300):
                    number = await front.ask()
                    await front.reset(number)
                await trio.sleep(1)
                began = trio.current_time()
                if then == "sigterm":
                    await stack.signals.send(signal.SIGTERM)
                await front.closed.wait()
                assert trio.current_time() - began < (80 if then == "idle" else 2)
            await trio.sleep(PROMPT_S)
            assert decoder.engine.busy == 0


async def test_http2_a_bad_path_is_its_streams_own_business(
    autojump_clock: trio.testing.MockClock,
):
    async with open_fake_decoder(saying("a", "b", gap_s=1)) as decoder:
        async with open_stack(decoder.settings()) as stack:
            async with connect(stack) as front:
                await assert_reset_beside_a_stream(front, method=b"GET", path=b"/\xff")
            await stack.assert_as_before(PROMPT_S)
