"""A minute of `make soak`."""

import pytest

from tests.soak.__main__ import soak
from tests.soak.clients import Seen

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_everything_is_back_where_it_began_after_load_and_failures():
    report = soak(45, "make-test")
    print(report)
    assert not report.seen["alone"].faults
    assert not report.seen["crowd"].faults
    for seen in report.seen.values():
        assert seen.outcomes["whole"] > 100
        assert seen.outcomes["left"] > 10
    assert report.chaos["kill"] > 0


def test_an_answer_without_its_end_or_its_tokens_is_found():
    done = b"data: [DONE]\n\n"
    token = b'data: {"id":"x","choices":[{"delta":{"content":"0 "}}]}\n\n'
    for status, body, count, outcome in (
        (200, token + done, 1, "whole"),
        (503, b"", 1, "503"),
        (200, token + b'data: {"error":{}}\n\n' + done, 9, "error frame"),
        (200, token, 1, "FAULT"),
        (200, token + done, 2, "FAULT"),
        (200, done, 1, "FAULT"),
        (500, b"", 1, "FAULT"),
    ):
        seen = Seen()
        seen.answer(status, body, count)
        assert list(seen.outcomes) == [outcome], (status, body)
