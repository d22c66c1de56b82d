"""A minute of `make fuzz`, with the same inputs each time, and every input that ever did harm once more."""

import time

import pytest
import trio

from tests.fuzz.__main__ import fuzz
from tests.fuzz.fire import perform
from tests.fuzz.judge import judge
from tests.fuzz.play import FOUND, GRAMMARS, load_play
from tests.fuzz.target import open_target
from tests.support.processes import SERVERS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SEED = "make-test"
INPUTS = {"proxy": 9_000, "hypercorn-trio": 2_000}


@pytest.mark.parametrize("server", SERVERS[:2])
def test_malformed_input_kills_nothing_and_leaves_nothing(server: str):
    tally = fuzz(SEED, 0, INPUTS[server], server)
    print(tally)
    assert tally.played == INPUTS[server]
    assert all(tally.by_grammar[grammar] > 0 for grammar in GRAMMARS)  # some went all the way
    assert {200, 400, 404, 405, 431} <= set(tally.statuses)
    assert tally.bystander_tokens > 100


def test_inputs_that_did_harm_do_none_any_more():
    plays = [load_play(path) for path in sorted(FOUND.iterdir())]
    assert plays
    with open_target() as target:
        trio.run(perform, plays[0], target.door.port)
        time.sleep(1)
        before = target.census()
        for play in plays:
            judge(play.sent, trio.run(perform, play, target.door.port))
            target.watch()
        target.await_rest(before, 16 << 20, within_s=5)
